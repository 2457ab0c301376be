"""What a degradation plan does to pixels."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from finetune.data.degradation import apply_plan
from finetune.data.degradation.apply import apply_operation
from finetune.data.degradation.codec import transcode
from finetune.data.degradation.kernels import kernel_weights
from finetune.data.degradation.plan import Blur, GaussianNoise, Jpeg, Kernel, PoissonNoise, Resize, VideoCodec
from tests.test_degradation import KINDS, NAMES, plan_of
from vsr.errors import UsageError


def texture(num_frames: int, height: int, width: int) -> np.ndarray:
    """A photograph-like clip: smoothed noise that moves one pixel per frame."""
    noise = np.random.default_rng(0).normal(0, 1, (height + num_frames, width + num_frames, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    levels = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return np.stack([levels[i : i + height, i : i + width] for i in range(num_frames)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(25))
def test_lq_is_a_quarter_of_gt_and_the_same_every_time(name, seed):
    num_frames = 1 if name in ("realesrgan", "dove_image") else 1 + seed % 4
    height, width = 16 + 4 * (seed % 7), 20 + 4 * (seed % 5)
    frames, plan = texture(num_frames, height, width), plan_of(name, seed, num_frames, height, width)
    lq = apply_plan(frames, plan)
    assert lq.shape == (num_frames, height // 4, width // 4, 3)
    assert lq.dtype == (np.uint16 if name.startswith("dove") else np.uint8)
    np.testing.assert_array_equal(lq, apply_plan(frames, plan))


def test_a_constant_clip_stays_constant_through_blur_and_resize():
    frames = np.full((3, 32, 48, 3), (200, 30, 117), np.uint8)
    for name in NAMES:
        for seed in range(30):
            plan = plan_of(name, seed)
            kept = tuple(op for op in plan.operations if isinstance(op, Blur | Resize))
            lq = apply_plan(frames, replace(plan, operations=kept, output_bits=8))
            assert (lq == (200, 30, 117)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_sum_to_one_and_are_symmetric_about_the_centre(kind):
    for size in range(7, 22, 2):
        kernel = Kernel(kind=kind, size=size, sigma_x=1.3, sigma_y=0.7, theta=0.6, beta=1.7, omega=1.9)
        weights = kernel_weights(kernel)
        assert weights.shape == (size, size)
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_kernels_by_hand():
    gaussian = kernel_weights(Kernel(kind="iso", size=7, sigma_x=1, sigma_y=1))
    assert gaussian[3, 4] / gaussian[3, 3] == pytest.approx(math.exp(-0.5))
    plateau = kernel_weights(Kernel(kind="plateau_iso", size=7, sigma_x=1, sigma_y=1, beta=2))
    assert plateau[3, 5] / plateau[3, 3] == pytest.approx(1 / (1 + 4**2))
    wide = Kernel(kind="aniso", size=21, sigma_x=3, sigma_y=0.5)
    assert kernel_weights(wide)[10, 12] > kernel_weights(wide)[12, 10]  # the first axis lies along the row
    turned = kernel_weights(replace(wide, theta=math.pi / 2))
    np.testing.assert_allclose(turned, kernel_weights(wide).T, atol=1e-7)


def test_sinc_keeps_low_frequencies_and_stops_high_ones():
    weights = kernel_weights(Kernel(kind="sinc", size=21, omega=math.pi / 2))
    response = np.abs(np.fft.fft(weights.sum(axis=0), 64))  # along x; bin k is the frequency 2 pi k / 64
    assert response[:8] == pytest.approx(1, abs=0.1)
    assert response[26:33].max() < 0.1


def ramp() -> np.ndarray:
    """(256, 4096, 3): every level, one per row."""
    return np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 4096, 3))


@pytest.mark.parametrize("gray", [False, True])
def test_poisson_noise_has_the_published_strength_and_the_dove_preset_a_sixteenth(gray):
    stds = {}
    for white in (1.0, 255.0):
        noise = PoissonNoise(scales=(2.0,), gray=gray, white=white, seed=3)
        (noisy,) = apply_operation(noise, [ramp()])
        error = (noisy - ramp())[100]
        stds[white] = error.std()
        assert np.allclose(error[..., 0], error[..., 1]) is gray
    assert stds[1.0] == pytest.approx(2 * 255 * math.sqrt(100 / 255 / 256), rel=0.05)  # 256 levels: 256 photons
    assert stds[1.0] / stds[255.0] == pytest.approx(math.sqrt(255), rel=0.07)


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_has_its_sigma_and_is_new_in_every_frame(gray):
    frame = np.full((64, 64, 3), 128, np.uint8)
    noise = GaussianNoise(sigmas=(10.0, 10.0), gray=gray, seed=3)
    one, two = ((noisy - frame)[..., 0] for noisy in apply_operation(noise, [frame, frame]))
    assert one.std() == pytest.approx(10, rel=0.05)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.08


def test_swapping_red_and_blue_costs_red():
    frame = texture(1, 64, 64)[0]
    right, swapped = (
        next(apply_operation(Jpeg(qualities=(40,), swap_red_blue=swap), [frame])).astype(int) for swap in (False, True)
    )
    (by_hand,) = apply_operation(Jpeg(qualities=(40,), swap_red_blue=False), [frame[..., ::-1]])
    np.testing.assert_array_equal(swapped, by_hand[..., ::-1])
    red_error, blue_error = (np.abs(right - frame)[..., channel].mean() for channel in (0, 2))
    assert red_error < blue_error


@pytest.mark.parametrize("codec", ["libx264", "h264", "mpeg4"])
def test_the_codec_gives_the_same_bytes_twenty_times(codec):
    frames = list(texture(10, 64, 96))
    operation = VideoCodec(codec=codec, bits_per_frame=6000, size=(64, 96))
    results = {np.stack(transcode(frames, operation)).tobytes() for _ in range(20)}
    assert len(results) == 1


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (17, 33), (64, 47)])
def test_the_codec_keeps_count_and_size(codec, size):
    frames = texture(5, *size)
    decoded = transcode(list(frames), VideoCodec(codec=codec, bits_per_frame=100_000, size=size))
    assert np.stack(decoded).shape == frames.shape
    assert np.abs(np.stack(decoded).astype(int) - frames).mean() < 25


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_codec_keeps_the_mean_of_each_channel(codec):
    frames = texture(5, 64, 96) // 2 + 60  # nothing to clip
    decoded = transcode(list(frames), VideoCodec(codec=codec, bits_per_frame=500_000, size=(64, 96)))
    shift = (np.stack(decoded).astype(float) - frames).mean(axis=(0, 1, 2))
    assert np.abs(shift).max() < 0.3


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_codec_leaves_colours_where_they_are(codec):
    y, x = np.mgrid[:64, :64]
    blob = 100 * np.exp(-((x - 31.5) ** 2 + (y - 31.5) ** 2) / 60)
    frame = np.stack([128 + blob, np.full_like(blob, 128), np.full_like(blob, 128)], axis=2).astype(np.uint8)
    for decoded in transcode([frame] * 3, VideoCodec(codec=codec, bits_per_frame=200_000, size=(64, 64))):
        red = np.maximum(decoded[..., 0].astype(float) - decoded[..., 1] - 3, 0)
        assert (red * x).sum() / red.sum() == pytest.approx(31.5, abs=0.05)
        assert (red * y).sum() / red.sum() == pytest.approx(31.5, abs=0.05)


def test_fewer_bits_are_worse():
    frames = texture(8, 96, 96)[..., :1].repeat(3, axis=-1)  # grey, since 4:2:0 alone costs colour
    errors = []
    for bits in (1000, 100_000):
        decoded = transcode(list(frames), VideoCodec(codec="libx264", bits_per_frame=bits, size=(96, 96)))
        errors.append(np.square(np.stack(decoded).astype(float) - frames).mean())
    assert errors[0] > 2 * errors[1]


def test_a_plan_refuses_frames_that_it_is_not_for():
    with pytest.raises(ValueError, match=r"\(3, 32, 48, 3\), got uint8 \(2, 32, 48, 3\)"):
        apply_plan(texture(2, 32, 48), plan_of("dove", 0))
    with pytest.raises(UsageError, match="multiples of 4 pixels, got 3 of 46x32"):
        plan_of("dove", 0, width=46)
