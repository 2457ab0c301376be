"""Turn a plan into pixels. Nothing is drawn here but noise, from generators that the plan seeds.

Frames are (H, W, 3) RGB with levels 0..255, uint8 or float32 in between.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count, repeat

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from finetune.data.degradation.codec import transcode
from finetune.data.degradation.kernels import kernel_weights
from finetune.data.degradation.plan import (
    Blur,
    GaussianNoise,
    Interpolation,
    Jpeg,
    Operation,
    Plan,
    PoissonNoise,
    Resize,
    Resizer,
    VideoCodec,
)
from finetune.data.opencv import without_ipp
from finetune.data.threads import one_torch_thread

CV2_INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}


@without_ipp()
def apply_plan(frames: np.ndarray, plan: Plan) -> np.ndarray:
    """Degrade a clip.

    Args:
        frames: ground truth (F, H, W, 3), uint8 RGB, as many and as large as the plan is for.

    Returns:
        (F, H / scale, W / scale, 3), uint8; uint16 in which 65535 is white where the plan says 16 bits.
    """
    expected = (plan.num_frames, *plan.size, 3)
    if frames.shape != expected or frames.dtype != np.uint8:
        raise ValueError(f"the plan is for uint8 frames of shape {expected}, got {frames.dtype} {frames.shape}")
    clip: Iterable[np.ndarray] = frames
    for operation in plan.operations:
        clip = apply_operation(operation, clip)
    return np.stack([_quantize(frame, plan.output_bits) for frame in clip])


def apply_operation(operation: Operation, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the frames after one operation. Only a video codec needs them all at once."""
    if isinstance(operation, VideoCodec):
        same_size = (resize_frame(to_uint8(frame), operation.size, "bilinear", "opencv") for frame in frames)
        return iter(transcode(list(same_size), operation))
    return map(_FRAMEWISE[type(operation)], frames, count(), repeat(operation))


def to_uint8(frame: np.ndarray) -> np.ndarray:
    """Rounded and clipped levels."""
    return frame if frame.dtype == np.uint8 else frame.round().clip(0, 255).astype(np.uint8)


def resize_frame(frame: np.ndarray, size: tuple[int, int], mode: Interpolation, resizer: Resizer) -> np.ndarray:
    """Interpolate without an anti-aliasing filter, as both publications do."""
    if frame.shape[:2] == size:
        return frame
    if resizer == "opencv":
        return cv2.resize(frame, size[::-1], interpolation=CV2_INTERPOLATIONS[mode])
    image = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None]
    corners = {} if mode == "area" else {"align_corners": False}
    with one_torch_thread():
        resized = F.interpolate(image, size, mode=mode, **corners)[0]
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def _blur(frame: np.ndarray, index: int, blur: Blur) -> np.ndarray:
    return cv2.filter2D(frame, cv2.CV_32F, kernel_weights(blur.kernels[index]), borderType=cv2.BORDER_REFLECT_101)


def _resize(frame: np.ndarray, index: int, resize: Resize) -> np.ndarray:
    return resize_frame(frame, resize.sizes[index], resize.interpolation, resize.resizer)


def _gaussian_noise(frame: np.ndarray, index: int, noise: GaussianNoise) -> np.ndarray:
    rng = np.random.default_rng([noise.seed, index])
    shape = (*frame.shape[:2], 1 if noise.gray else 3)
    return np.clip(frame + noise.sigmas[index] * rng.standard_normal(shape, np.float32), 0, 255, dtype=np.float32)


def _poisson_noise(frame: np.ndarray, index: int, noise: PoissonNoise) -> np.ndarray:
    """Shot noise of a picture with as many photons at white as its levels need bits: 2^ceil(log2(levels))."""
    rng = np.random.default_rng([noise.seed, index])
    levels = to_uint8(frame)
    if noise.gray:
        levels = cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)[..., None]
    num_levels = np.count_nonzero(np.bincount(levels.ravel(), minlength=256))
    photons = 2 ** np.ceil(np.log2(num_levels)) * noise.white
    clean = levels / 255
    shot = (rng.poisson(clean * photons) / photons - clean) * 255
    return np.clip(frame + noise.scales[index] * shot, 0, 255, dtype=np.float32)


def _jpeg(frame: np.ndarray, index: int, jpeg: Jpeg) -> np.ndarray:
    order = slice(None) if jpeg.swap_red_blue else slice(None, None, -1)  # OpenCV takes BGR
    pixels = np.ascontiguousarray(to_uint8(frame)[..., order])
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, jpeg.qualities[index]])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., order]


_FRAMEWISE: dict[type, Callable[[np.ndarray, int, Operation], np.ndarray]] = {
    Blur: _blur,
    Resize: _resize,
    GaussianNoise: _gaussian_noise,
    PoissonNoise: _poisson_noise,
    Jpeg: _jpeg,
}


def _quantize(frame: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return to_uint8(frame)
    return (frame.astype(np.float32) * 257).round().clip(0, 65535).astype(np.uint16)
