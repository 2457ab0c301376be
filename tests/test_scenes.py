"""Scene cuts on a stream: hard cuts are found, and what looks like one is left alone."""

import numpy as np
import pytest
from skimage import data

from vsr.scenes import number_scenes


def pan(picture, num_frames, step=2):
    """A window of 120x160 that moves over a photograph."""
    height, width = 120, 160
    travel = [min(i * step, picture.shape[1] - width) for i in range(num_frames)]
    return [np.ascontiguousarray(picture[60 : 60 + height, x : x + width]) for x in travel]


def first_frames(frames):
    """Indices at which a new scene begins, the first left out."""
    numbers = [number for number, _ in number_scenes(frames)]
    assert len(numbers) == len(frames)
    return [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1]]


@pytest.fixture(scope="module")
def photographs():
    return [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]


def test_hard_cuts_between_photographs_are_found_at_the_frame(photographs):
    lengths = (20, 11, 7, 17)
    clip = [frame for photo, n in zip(photographs, lengths, strict=True) for frame in pan(photo, n)]
    assert first_frames(clip) == [20, 31, 38]


def test_a_cut_right_after_the_first_or_before_the_last_frame_is_found(photographs):
    one, two = pan(photographs[0], 6), pan(photographs[1], 6)
    assert first_frames(one[:1] + two) == [1]
    assert first_frames(one + two[:1]) == [6]
    assert first_frames([one[0], two[0]]) == [1]


def test_camera_motion_is_no_cut(photographs):
    for photo in photographs:
        assert first_frames(pan(photo, 40, step=6)) == []


def test_noise_and_flicker_are_no_cuts(photographs):
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, 25, f.shape), 0, 255).astype(np.uint8) for f in pan(photographs[0], 20)]
    assert first_frames(noisy) == []
    strobe = [frame if i % 2 else frame // 4 for i, frame in enumerate(pan(photographs[1], 20))]
    assert first_frames(strobe) == []


def test_a_flash_is_no_cut(photographs):
    clip = pan(photographs[0], 20)
    clip[9] = np.full_like(clip[9], 250)
    assert first_frames(clip) == []


def test_a_dissolve_is_not_split(photographs):
    one, two = pan(photographs[0], 40), pan(photographs[2], 40)
    weights = np.clip((np.arange(40) - 10) / 20, 0, 1)
    mixed = [(a * (1 - w) + b * w).astype(np.uint8) for a, b, w in zip(one, two, weights, strict=True)]
    assert first_frames(mixed) == []


def test_sixteen_bit_frames_are_judged_like_eight_bit_ones(photographs):
    clip = [frame.astype(np.uint16) * 257 for frame in pan(photographs[0], 5) + pan(photographs[1], 5)]
    assert first_frames(clip) == [5]
