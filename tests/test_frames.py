"""Frames to tensors and back, and the weights of overlaps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from vsr.blending import fade_in_, rising_edge, tile_weights
from vsr.frames import UPSCALE_MODES, output_size, to_frame, to_lq
from vsr.windows import cut_axis


def test_padding_replicates_the_border_instead_of_adding_black():
    frame = np.full((5, 7, 3), 200, np.uint8)
    x = to_lq([frame], (20, 28), (32, 32), "bilinear")
    assert x.shape == (1, 3, 1, 32, 32)
    assert_close(x, torch.full_like(x, 200 / 127.5 - 1))


def test_bilinear_upsampling_by_hand():
    # two pixels 0 and 100, doubled, corners not aligned: 0, 25, 75, 100
    frame = np.array([[[0] * 3, [100] * 3]], np.uint8)
    x = (to_lq([frame], (1, 4), (1, 4), "bilinear") * 0.5 + 0.5) * 255
    assert x[0, 0, 0, 0].tolist() == pytest.approx([0, 25, 75, 100], abs=1e-3)


@pytest.mark.parametrize("mode", UPSCALE_MODES)
def test_every_mode_stays_within_the_range_of_pixels(mode):
    noise = np.random.default_rng(0).integers(0, 2, (9, 9, 3), dtype=np.uint8) * 255
    x = to_lq([noise], (30, 30), (32, 32), mode)
    assert x.min() >= -1
    assert x.max() <= 1


def test_values_are_rounded_not_truncated():
    x = torch.tensor([0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0]).view(1, 1, 5).expand(3, 1, 5)
    assert to_frame(x)[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_sixteen_bit_frames_keep_their_depth():
    frame = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16, 1).repeat(3, axis=2)
    x = to_lq([frame], (16, 16), (16, 16), "bilinear")[0, :, 0] * 0.5 + 0.5
    assert np.abs(to_frame(x, np.uint16).astype(int) - frame).max() <= 1


@pytest.mark.parametrize(("scale", "expected"), [(4, (188, 252)), (2.5, (118, 158)), (1, (47, 63)), (0.1, (5, 6))])
def test_output_size_rounds_halves_up(scale, expected):
    assert output_size(47, 63, scale=scale) == expected


@given(st.integers(1, 60))
def test_the_two_weights_of_a_cross_fade_sum_to_one(length):
    edge = rising_edge(length)
    assert_close(edge + edge.flip(0), torch.ones(length))
    assert (edge > 0).all()
    assert (edge < 1).all()


def test_a_cross_fade_of_equal_windows_changes_nothing():
    x = torch.rand(9, 3, 4, 4)
    assert_close(fade_in_(x.clone(), x), x)


def test_a_cross_fade_goes_from_the_old_window_to_the_new_one():
    # raised cosine at 1/4, 1/2 and 3/4 of the way
    faded = fade_in_(torch.ones(3), torch.zeros(3))
    assert faded.tolist() == pytest.approx([0.14645, 0.5, 0.85355], abs=1e-5)


@given(st.integers(1, 80), st.integers(3, 40), st.integers(0, 30))
def test_tile_weights_sum_to_one_at_every_pixel(units, tile_units, overlap):
    multiple = 8
    if overlap + multiple // 2 > (tile_units - 1) * multiple:
        return
    tile, starts = cut_axis(units * multiple, tile_units * multiple, overlap, multiple)
    total = torch.zeros(units * multiple)
    for start, weight in zip(starts, tile_weights(units * multiple, tile, starts), strict=True):
        total[start : start + tile] += weight
    assert_close(total, torch.ones_like(total))
