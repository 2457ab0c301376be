"""Windows and tiles: properties over all lengths, and the cases where the published DOVE goes wrong."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsr.errors import UsageError
from vsr.windows import check_window, cut_axis, cut_scene, fit_tile, legal_length

STEP = 8


def starts(length, window, overlap):
    """(start of each window, its frames, its advance) over the frames 0, 1, 2, ..."""
    position, result = 0, []
    for cut in cut_scene(range(length), window, overlap, STEP):
        result.append((position, cut.frames, cut.advance))
        position += cut.advance
    return result


lengths = st.integers(1, 400)
windows = st.integers(1, 12).map(lambda k: STEP * k + 1)


@given(lengths, windows, st.integers(0, 200))
def test_windows_show_every_frame_in_its_place_and_advance_over_the_whole_scene(length, window, overlap):
    overlap = check_window(window, min(overlap, window - STEP), STEP)
    cuts = starts(length, window, overlap)
    size = min(window, legal_length(length, STEP))
    for start, frames, _ in cuts:
        assert start % STEP == 0
        assert frames == [min(start + i, length - 1) for i in range(size)]
    assert sum(advance for _, _, advance in cuts) == length


@given(lengths, windows, st.integers(0, 200))
def test_neighbouring_windows_share_at_least_the_overlap(length, window, overlap):
    overlap = check_window(window, min(overlap, window - STEP), STEP)
    assert all(window - advance >= overlap for _, _, advance in starts(length, window, overlap)[:-1])


def test_the_last_window_is_moved_back_not_merged_or_shortened():
    # 105 frames, windows of 33, overlap 9: the published script ends with one window of 55 frames
    assert [start for start, _, _ in starts(105, 33, 9)] == [0, 24, 48, 72]
    assert [start for start, _, _ in starts(100, 33, 9)] == [0, 24, 48, 72]
    assert [start for start, _, _ in starts(61, 33, 9)] == [0, 24, 32]


def test_a_scene_shorter_than_a_window_gets_the_least_legal_length():
    assert [len(frames) for _, frames, _ in starts(10, 33, 9)] == [17]
    assert [len(frames) for _, frames, _ in starts(1, 33, 9)] == [1]


def test_window_zero_is_the_whole_scene():
    assert [len(frames) for _, frames, _ in starts(100, 0, 0)] == [105]


def test_cutting_is_a_stream_that_reads_no_further_than_the_next_window():
    read = []
    cuts = cut_scene((read.append(i) or i for i in range(10_000)), 33, 9, STEP)
    next(cuts)
    assert len(read) <= 33 + 24
    next(cuts)
    assert len(read) <= 33 + 48


@pytest.mark.parametrize(("overlap", "rounded"), [(0, 1), (1, 1), (8, 9), (9, 9), (10, 17)])
def test_overlaps_are_rounded_up_so_that_windows_start_at_multiples_of_the_step(overlap, rounded):
    assert check_window(33, overlap, STEP) == rounded


@pytest.mark.parametrize("window", [2, 8, 24, 32, 61, 100, -7])
def test_an_illegal_window_is_refused_with_the_nearest_legal_ones(window):
    with pytest.raises(UsageError, match=r"8k\+1"):
        check_window(window, 0, STEP)


def test_an_overlap_as_long_as_the_window_is_refused():
    with pytest.raises(UsageError, match="overlap"):
        check_window(33, 33, STEP)


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 40), st.sampled_from([8, 16]))
def test_tiles_are_equal_cover_the_axis_and_never_exceed_what_was_asked(units, tile_units, overlap, multiple):
    length, asked = units * multiple, tile_units * multiple + 3
    if length > asked and tile_units <= -(-(overlap + (multiple // 2 if overlap else 0)) // multiple):
        with pytest.raises(UsageError, match="too small for an overlap"):
            cut_axis(length, asked, overlap, multiple)
        return
    tile, places = cut_axis(length, asked, overlap, multiple)
    assert tile <= asked or tile == length <= asked
    assert tile % multiple == 0
    assert places[0] == 0
    assert places == sorted(set(places))
    assert places[-1] + tile == length
    assert all(a + tile - b >= overlap for a, b in itertools.pairwise(places))


def test_every_second_tile_begins_half_a_multiple_early():
    assert cut_axis(256, 96, 44, 8) == (96, [0, 36, 80, 116, 160])
    assert cut_axis(256, 96, 16, 8) == (88, [0, 52, 112, 168])


def test_tiles_that_share_nothing_lie_side_by_side():
    assert cut_axis(240, 80, 0, 8) == (80, [0, 80, 160])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(200_000, 3_000_000))
def test_a_fitted_tile_has_at_most_the_pixels_allowed(rows, cols, most):
    height, width = fit_tile((16 * rows, 16 * cols), (0, 0), most, (32, 32), 16)
    assert height * width <= most
    assert height <= 16 * rows
    assert width <= 16 * cols


@given(st.integers(12, 600), st.integers(12, 600), st.integers(0, 44))
def test_a_small_tile_fits_frames_of_any_size(rows, cols, overlap):
    height, width = fit_tile((8 * rows, 8 * cols), (0, 0), 96 * 96, (overlap, overlap), 8)
    assert 96 * 48 <= height * width <= 96 * 96
    for length, tile in ((8 * rows, height), (8 * cols, width)):
        assert cut_axis(length, tile, overlap, 8)[0] == tile


def test_full_hd_is_cut_once():
    assert fit_tile((1088, 1920), (0, 0), 1_500_000, (32, 32), 16) == (1088, 992)


def test_a_tile_that_was_asked_for_is_evened_out_and_no_smaller():
    assert fit_tile((576, 720), (64, 144), 96 * 96, (12, 12), 8) == (64, 136)


def test_one_side_of_a_tile_makes_room_for_an_overlap_of_the_other():
    assert fit_tile((480, 640), (0, 0), 96 * 96, (0, 96), 8) == (80, 112)


def test_an_overlap_that_leaves_no_tile_is_refused_with_the_least_tile():
    with pytest.raises(UsageError, match="104x104; give a smaller --overlap_hw"):
        fit_tile((480, 640), (0, 0), 96 * 96, (88, 88), 8)
