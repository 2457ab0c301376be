"""The loop over windows and tiles, without networks: frame i of the output is frame i of the input."""

import itertools

import numpy as np
import pytest
import torch

from tests.tiny import identity_pipeline, numbered_clip, random_pipeline
from vsr import RestoreSettings, restore_frames
from vsr.errors import InputError, UsageError, VSRError
from vsr.fitting import Fitting
from vsr.frames import output_size, to_frame, to_lq
from vsr.settings import make_layout
from vsr.windows import Grid

SIZES = [(48, 64), (47, 63), (90, 34)]


def restored(clip, pipe=None, **settings):
    return np.stack(list(restore_frames(pipe or identity_pipeline(), clip, RestoreSettings(**settings))))


def upsampled(clip, size):
    x = to_lq(list(clip), size, size, "bilinear")[0].transpose(0, 1) * 0.5 + 0.5
    return np.stack([to_frame(frame) for frame in x])


CUTS = [
    {"window": 0},
    {"window": 33},
    {"window": 17, "overlap": 8},
    {"window": 9, "tile": (64, 48), "tile_overlap": (16, 20)},
]


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 33, 61, 100])
@pytest.mark.parametrize(("size", "scale", "cut"), [*itertools.product(SIZES, [1, 2.5, 4], CUTS)])
def test_frame_i_of_the_output_is_frame_i_of_the_input(num_frames, size, scale, cut):
    clip = numbered_clip(num_frames, *size)
    result = restored(clip, scale=scale, **cut)
    expected = upsampled(clip, output_size(*size, scale=scale))
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_at_scale_1_every_bit_survives_in_8_and_16_bits():
    clip = np.random.default_rng(0).integers(0, 65536, (20, 30, 40, 3), dtype=np.uint16)
    deep = np.stack(list(restore_frames(identity_pipeline(), clip, RestoreSettings(scale=1), dtype=np.uint16)))
    assert np.abs(deep.astype(int) - clip).max() <= 1  # float32 has 24 bits
    shallow = (clip >> 8).astype(np.uint8)
    assert (restored(shallow, scale=1) == shallow).all()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"scale": 2.5}, (118, 158)),  # 117.5 and 157.5: halves go up
        ({"size": (200, 100)}, (100, 200)),
        ({"short_side": 94}, (94, 126)),
        ({}, (188, 252)),
    ],
)
def test_output_sizes(asked, expected):
    clip = numbered_clip(2, 47, 63)
    assert restored(clip, **asked).shape == (2, *expected, 3)


def test_all_windows_of_a_clip_have_one_size_and_so_have_all_tiles():
    pipe = identity_pipeline()
    restored(numbered_clip(70, 60, 90), pipe, scale=2, window=17, tile=(64, 96))
    assert set(pipe.calls) == {(17, 64, 96)}


def test_a_frame_that_the_codec_cannot_take_whole_is_tiled():
    pipe = identity_pipeline(max_pixels=10_000)
    restored(numbered_clip(3, 60, 90), pipe, scale=2)
    assert all(height * width <= 10_000 for _, height, width in pipe.calls)


def test_tiles_overlap_as_the_model_says_unless_the_user_does():
    grid = Grid(multiple=8, step=8, max_pixels=96 * 96, tile_overlap=48)

    def columns(**asked):
        return make_layout(RestoreSettings(scale=4, **asked), grid, 24, 60, 4).cols

    assert columns() == [0, 28, 72, 100, 144]
    assert columns(tile_overlap=(32, 32)) == [0, 44, 96, 144]
    assert columns(tile_overlap=(0, 0)) == [0, 80, 160]


def test_tiles_are_odd_and_even_in_turn_down_and_across():
    odd = []

    class Noting(type(identity_pipeline())):
        def restore(self, *args):
            odd.append(args[-1])
            return super().restore(*args)

    grid, settings = identity_pipeline().grid, {"scale": 1, "tile": (64, 64)}
    restored(numbered_clip(1, 96, 144), Noting(grid), **settings)
    layout = make_layout(RestoreSettings(**settings), grid, 96, 144, 1)
    assert len(layout.cols) % 2 == 0  # else counting through the rows would do
    assert odd == [(row + col) % 2 == 1 for row in range(len(layout.rows)) for col in range(len(layout.cols))]


def test_every_tile_is_told_of():
    told = []
    fitting = Fitting(identity_pipeline(), on_tile=lambda done, count: told.append((done, count)))
    fitting.restore_window(RestoreSettings(scale=1, tile=(64, 64)), None, 0, list(numbered_clip(9, 64, 160)))
    assert told == [(1, 7), (2, 7), (3, 7), (4, 7), (5, 7), (6, 7), (7, 7)]


def test_windows_do_not_cross_a_scene_cut():
    clip = np.concatenate([numbered_clip(20, 48, 64), 255 - numbered_clip(15, 48, 64, seed=5) // 4])
    pipe = identity_pipeline()
    assert np.array_equal(restored(clip, pipe, scale=1), clip)
    assert [frames for frames, _, _ in pipe.calls] == [25, 17]
    pipe = identity_pipeline()
    restored(clip, pipe, scale=1, scene_cut="off")
    assert [frames for frames, _, _ in pipe.calls] == [33, 33]


def test_restoring_is_a_stream():
    taken = []
    source = (taken.append(1) or frame for frame in itertools.repeat(numbered_clip(1, 16, 16)[0]))
    results = restore_frames(identity_pipeline(), source, RestoreSettings(scale=1))
    next(results)
    assert len(taken) < 70


def test_each_network_sees_at_most_1_4_frames_per_frame():
    pipe = identity_pipeline()
    restored(np.repeat(numbered_clip(1, 16, 16), 600, axis=0), pipe, scale=1)
    assert sum(frames for frames, _, _ in pipe.calls) <= 1.4 * 600


def test_a_frame_of_another_size_is_named():
    clip = [*numbered_clip(3, 16, 16), *numbered_clip(1, 16, 32)]
    with pytest.raises(InputError, match="frame 3"):
        list(restore_frames(identity_pipeline(), clip))


def test_a_result_that_is_not_a_number_is_an_error_not_a_black_frame():
    pipe = identity_pipeline()
    pipe.restore = lambda x_lq, *rest: x_lq * torch.nan
    with pytest.raises(VSRError, match=r"not numbers.*--dtype"):
        restored(numbered_clip(9, 48, 64), pipe)


def test_no_frames_give_no_frames():
    assert list(restore_frames(identity_pipeline(), [])) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scale": 2, "short_side": 100}, "given once"),
        ({"scale": 0}, "above 0"),
        ({"scale": -1.0}, "above 0"),
        ({"upscale_mode": "lanczos"}, "bilinear"),
        ({"scene_cut": "yes"}, "auto"),
        ({"color_fix": "adain"}, "wavelet"),
        ({"tile": (-1, 0)}, "at least 0"),
    ],
)
def test_wrong_settings_are_refused_at_once(wrong, words):
    with pytest.raises(UsageError, match=words):
        RestoreSettings(**wrong)


def test_the_wavelet_color_fix_removes_a_colour_cast_and_keeps_detail():
    class Tinted(type(identity_pipeline())):
        def restore(self, x_lq, *args):
            tint = torch.tensor([0.08, 0.0, -0.08]).view(1, 3, 1, 1, 1)
            return (super().restore(x_lq, *args) * 0.8 + 0.1 + tint).clamp(0, 1)

    clip = numbered_clip(20, 48, 64)
    pipe = Tinted(identity_pipeline().grid)
    plain, fixed = (restored(clip, pipe, scale=1, color_fix=fix).astype(float) for fix in ("none", "wavelet"))
    assert np.abs(plain.mean((0, 1, 2)) - clip.mean((0, 1, 2))).max() > 15
    assert np.abs(fixed.mean((0, 1, 2)) - clip.mean((0, 1, 2))).max() < 1
    assert np.ptp((fixed - plain).mean((1, 2)), axis=0).max() < 1  # one correction for the window: no flicker


def test_randomness_depends_on_seed_window_and_tile_only():
    pipe = random_pipeline(posterior="sample")
    clip = numbered_clip(12, 16, 16)
    torch.manual_seed(1)
    once = restored(clip, pipe, scale=2, window=9, seed=7)
    torch.manual_seed(2)
    assert np.array_equal(once, restored(clip, pipe, scale=2, window=9, seed=7))
    assert not np.array_equal(once, restored(clip, pipe, scale=2, window=9, seed=8))
