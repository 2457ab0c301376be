"""PSNR and SSIM of frames: pure functions of tensors, one implementation for the metric script, validation and tests.

Both follow pyiqa 0.1.16 (metrics ``psnr`` and ``ssim`` at their defaults), because that is what DOVE's published
tables were computed with; a test holds them equal to 1e-4.
"""

import torch
from torch import Tensor

YIQ_LUMA = (0.299, 0.587, 0.114)
"""Full-range luma of RGB in [0, 1]: pyiqa's default for SSIM."""
BT601_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""Limited-range luma of RGB in [0, 1], to which 16/255 is added: MATLAB's and BasicSR's Y of YCbCr."""
PSNR_EPSILON = 1e-8
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(x: Tensor, y: Tensor, *, crop: int = 0, test_y_channel: bool = False) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / (mse + 1e-8)), per frame over all pixels and channels.

    Args:
        x, y: (N, 3, H, W), float, RGB in [0, 1].
        crop: pixels left out along each border.
        test_y_channel: compare the limited-range BT.601 luma instead of RGB.

    Returns:
        (N,) float64, in dB; 80 for identical frames, since the epsilon bounds it.

    Raises:
        ValueError: inputs that differ in shape, are not float, not finite or out of range; a crop that leaves nothing.
    """
    x, y = _checked(x, y, crop)
    if test_y_channel:
        x, y = bt601_luma(x), bt601_luma(y)
    mse = (x - y).square().mean(dim=(1, 2, 3), dtype=torch.float64)
    return 10 * torch.log10(1 / (mse + PSNR_EPSILON))


def ssim(x: Tensor, y: Tensor, *, crop: int = 0, test_y_channel: bool = False) -> Tensor:
    """Structural similarity of the luma, per frame: 11x11 Gaussian window of sigma 1.5, valid part only.

    The luma is scaled to 255 and rounded as in the MATLAB original; a negative contrast-structure term counts as 0;
    large frames are not downsampled first.

    Args:
        x, y: (N, 3, H, W), float, RGB in [0, 1]; H and W at least 11 after the crop.
        crop: pixels left out along each border.
        test_y_channel: use the limited-range BT.601 luma instead of the full-range Y of YIQ.

    Returns:
        (N,) float64 in [0, 1]; 1 for identical frames.

    Raises:
        ValueError: as ``psnr``, and for frames smaller than the window.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity (2004).
    """
    x, y = _checked(x, y, crop)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs frames of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, got {_size(x)}")
    luma = bt601_luma if test_y_channel else yiq_luma
    x, y = ((255 * luma(frames)).round().double() for frames in (x, y))
    return _ssim_of_luma(x, y)


def _ssim_of_luma(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of (N, 1, H, W) float64 pictures of range 255; five windowed means in one pass."""
    means = _window_mean(torch.cat([x, y, x * x, y * y, x * y], dim=1))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means.unbind(dim=1)
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    contrast_structure = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    return (luminance * contrast_structure.relu()).mean(dim=(1, 2))


def _window_mean(x: Tensor) -> Tensor:
    """Gaussian mean around each pixel whose window lies inside: (N, C, H, W) -> (N, C, H - 10, W - 10).

    Shifted sums, rows then columns: torch's convolution of float64 on a CPU takes ten times as long and first copies
    every pixel once per window position.
    """
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).tolist()
    for axis in (-2, -1):
        length = x.shape[axis] - SSIM_WINDOW + 1
        mean = torch.zeros_like(x.narrow(axis, 0, length))
        for shift, weight in enumerate(weights):
            mean.add_(x.narrow(axis, shift, length), alpha=weight)
        x = mean
    return x


def yiq_luma(x: Tensor) -> Tensor:
    """Full-range luma: (N, 3, H, W) RGB in [0, 1] -> (N, 1, H, W) in [0, 1]."""
    return _weighted_sum(x, YIQ_LUMA)


def bt601_luma(x: Tensor) -> Tensor:
    """Limited-range luma: (N, 3, H, W) RGB in [0, 1] -> (N, 1, H, W) in [16/255, 235/255]."""
    return _weighted_sum(x, BT601_LUMA) + 16 / 255


def _weighted_sum(x: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Sum over the channels; not a matrix product, which a GPU may compute in reduced precision."""
    return (x * x.new_tensor(weights).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _checked(x: Tensor, y: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Both inputs as float32 without their border, or a ValueError that says what is wrong with which."""
    for name, frames in (("x", x), ("y", y)):
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"{name} must be (N, 3, H, W), got {tuple(frames.shape)}")
        if not frames.is_floating_point():
            raise ValueError(f"{name} must be float in [0, 1], got {frames.dtype}; divide by the largest value first")
        if not frames.isfinite().all():
            raise ValueError(f"{name} has NaN or infinite values")
        low, high = frames.min().item(), frames.max().item()
        if low < -1e-6 or high > 1 + 1e-6:  # a rounding error is no mistake, a picture in [-1, 1] or [0, 255] is
            raise ValueError(f"{name} must be in [0, 1], got values from {low:.6g} to {high:.6g}")
    if x.shape != y.shape:
        raise ValueError(f"frames must have one size, got {_size(x)} and {_size(y)} ({len(x)} and {len(y)} of them)")
    if crop < 0 or 2 * crop >= min(x.shape[-2:]):
        raise ValueError(f"a crop of {crop} pixels along each border leaves nothing of {_size(x)} frames")
    height, width = x.shape[-2:]
    inner = (..., slice(crop, height - crop), slice(crop, width - crop))
    return x[inner].float(), y[inner].float()


def _size(x: Tensor) -> str:
    return f"{x.shape[-1]}x{x.shape[-2]}"
