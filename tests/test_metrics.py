"""PSNR and SSIM: known values, equality with pyiqa, identities, refusal of what is no picture in [0, 1]."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.metrics.image import psnr, ssim

METRICS = pytest.mark.parametrize("metric", [psnr, ssim])


def to_frames(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def astronaut() -> tuple[Tensor, Tensor]:
    """The pair of the value table: a photograph and its noisy reconstruction from a quarter of the size."""
    data = pytest.importorskip("skimage.data")
    photo = np.ascontiguousarray(data.astronaut()[:480, :480])
    small = cv2.resize(photo, (120, 120), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (480, 480), interpolation=cv2.INTER_CUBIC)
    noisy = large + np.random.default_rng(0).normal(0, 6, large.shape)
    return to_frames(noisy.clip(0, 255).round().astype(np.uint8)), to_frames(photo)


@pytest.mark.parametrize(
    ("settings", "expected_psnr", "expected_ssim"),
    [
        ({}, 24.9073, 0.7196),
        ({"test_y_channel": True}, 26.80, 0.7781),
        ({"crop": 4}, 24.87, 0.7185),
    ],
    ids=["default", "test_y_channel", "crop"],
)
def test_values_of_a_known_pair(astronaut, settings, expected_psnr, expected_ssim):
    assert psnr(*astronaut, **settings).item() == pytest.approx(expected_psnr, abs=0.005 if settings else 1e-3)
    assert ssim(*astronaut, **settings).item() == pytest.approx(expected_ssim, abs=1e-3)


@pytest.fixture(scope="module", params=["random", "smooth", "astronaut"])
def pair(request, astronaut) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if request.param == "astronaut":
        return astronaut
    if request.param == "random":
        return torch.rand(2, 3, 40, 52, generator=generator), torch.rand(2, 3, 40, 52, generator=generator)
    coarse = torch.rand(2, 3, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(45, 61), mode="bicubic").clamp(0, 1)
    return smooth, (0.9 * smooth + 0.02).clamp(0, 1)


@pytest.mark.parametrize("options", [{}, {"test_y_channel": True, "color_space": "ycbcr"}, {"crop_border": 3}])
@METRICS
def test_equal_to_pyiqa(pair, metric, options):
    pyiqa = pytest.importorskip("pyiqa")
    theirs = pyiqa.create_metric(metric.__name__, device="cpu", **options)(*pair).reshape(-1)
    ours = metric(*pair, crop=options.get("crop_border", 0), test_y_channel="color_space" in options)
    assert ours.shape == (len(pair[0]),)
    torch.testing.assert_close(ours, theirs.double(), atol=1e-4, rtol=0)


def test_identical_frames_score_the_maximum():
    x = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(psnr(x, x), torch.full((3,), 80.0).double())
    torch.testing.assert_close(ssim(x, x), torch.ones(3).double())


def test_psnr_by_hand():
    # one level of ten: mse = 0.1^2 = 0.01 -> 10 log10(1 / 0.01) = 20 dB
    x = torch.full((1, 3, 8, 8), 0.5)
    assert psnr(x, x + 0.1).item() == pytest.approx(20.0, abs=1e-4)


@METRICS
def test_more_noise_scores_lower(astronaut, metric):
    x_gt = astronaut[1]
    noise = torch.randn(x_gt.shape, generator=torch.Generator().manual_seed(0))
    scores = [metric((x_gt + sigma / 255 * noise).clamp(0, 1), x_gt).item() for sigma in (0, 1, 2, 5, 10, 20)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


@METRICS
def test_frames_are_scored_one_by_one(metric):
    x, y = torch.rand(2, 4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(metric(x, y), torch.cat([metric(x[i : i + 1], y[i : i + 1]) for i in range(4)]))


GOOD = torch.full((1, 3, 16, 16), 0.5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full_like(GOOD, torch.nan), "NaN or infinite"),
        (torch.full_like(GOOD, torch.inf), "NaN or infinite"),
        (GOOD - 1, "from -0.5 to -0.5"),
        (GOOD * 255, "from 127.5 to 127.5"),
        ((GOOD * 255).byte(), "torch.uint8"),
        (GOOD[:, :, :12], "16x12 and 16x16"),
        (GOOD.expand(2, -1, -1, -1), "2 and 1"),
        (GOOD[:, :1], r"\(1, 1, 16, 16\)"),
        (GOOD[0], r"\(3, 16, 16\)"),
    ],
    ids=["nan", "inf", "negative", "range 255", "uint8", "size", "count", "gray", "no batch"],
)
@METRICS
def test_refuses_what_is_no_picture_in_range(metric, bad, message):
    with pytest.raises(ValueError, match=message):
        metric(bad, GOOD)


@METRICS
def test_refuses_a_crop_that_leaves_nothing(metric):
    with pytest.raises(ValueError, match="leaves nothing of 16x16"):
        metric(GOOD, GOOD, crop=8)


def test_ssim_refuses_frames_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11x11 pixels, got 10x10"):
        ssim(GOOD, GOOD, crop=3)
