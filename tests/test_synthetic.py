"""Synthetic scenes: what a seed decides, that nothing held out is trained on, camera geometry by hand."""

import numpy as np
import pytest

from finetune.data.synthetic import HELD_OUT, CameraMove, dead_leaves, film, photograph, random_scene
from finetune.data.synthetic.files import check_whole
from finetune.data.synthetic.pictures import KINDS, PHOTOGRAPHS, _radii
from finetune.data.synthetic.textures import noise, ramp
from finetune.scripts.make_clips import make_clip
from finetune.scripts.make_demo import SHOTS
from vsr.errors import EncoderError
from vsr.video_io import probe, read_frames


def test_photographs_are_color_and_what_is_held_out_is_not_trained_on():
    for name in (*PHOTOGRAPHS, *HELD_OUT):
        assert photograph(name).dtype == np.uint8
        assert photograph(name).shape[2:] == (3,)
    assert not set(PHOTOGRAPHS) & set(HELD_OUT)
    assert {shot.photo for shot in SHOTS} <= set(HELD_OUT)


def test_a_scene_follows_from_its_seed():
    first, again, other = (list(random_scene(np.random.default_rng(seed), (48, 32), 3)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first[0].shape == (32, 48, 3) and first[0].dtype == np.uint8 and len(first) == 3


def test_leaves_cover_the_picture_and_are_found_at_all_scales():
    rng = np.random.default_rng(0)
    picture = dead_leaves(rng, 96)
    assert (picture.sum(axis=2) == 0).mean() < 0.1
    radii = _radii(rng, 10**6, smallest=2, largest=50)
    assert radii.min() >= 2 and radii.max() <= 50
    # a density of r^-3 has as much area in each octave: four times as many leaves of half the radius
    small, large = ((radii >= low) & (radii < 2 * low) for low in (4, 8))
    assert small.sum() / large.sum() == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_pictures_of_every_kind_have_contrast_and_follow_from_their_seed(kind):
    first, again, other = (kind(np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.std() > 2


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_noise_has_the_slope_asked_for(slope):
    field = noise(np.random.default_rng(0), 256, slope)
    assert field.mean() == pytest.approx(0, abs=1e-5) and field.std() == pytest.approx(1, abs=1e-5)
    amplitude = np.abs(np.fft.rfft2(field))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    low, high = (amplitude[(frequency > f) & (frequency < 1.1 * f)].mean() for f in (0.1, 0.4))
    assert low / high == pytest.approx(4**slope, rel=0.1)


@pytest.mark.parametrize(("stretch", "least", "most"), [(1, 1.0, 1.05), (12, 1.3, 2.0)])
def test_drawn_out_noise_changes_less_along_one_direction_than_across(stretch, least, most):
    field = noise(np.random.default_rng(0), 256, 1.0, stretch)
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    steps = [(round(8 * np.sin(angle)), round(8 * np.cos(angle))) for angle in angles]
    changes = [np.abs(field - np.roll(field, step, axis=(0, 1))).mean() for step in steps]
    assert least <= max(changes) / min(changes) <= most


def test_a_ramp_goes_from_dark_to_light():
    value = ramp(np.random.default_rng(0)).max(axis=1)
    assert (np.diff(value) >= 0).all() and value.min() >= 0 and value.max() <= 255


def test_a_pan_by_whole_pixels_moves_the_picture_by_whole_pixels():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    move = CameraMove(center=(0.5, 0.5), step=1.0, pan=(6, 4))
    first, last = film(picture, move, (20, 16), 2)  # the ends of the way: -3, -2 and +3, +2 from the middle
    assert np.array_equal(first[4:, 6:], last[:-4, :-6])


def test_clips_are_written_once_and_complete(tmp_path):
    make_clip(tmp_path, 3)
    written = (tmp_path / "00003.mp4").read_bytes()
    assert len(list(read_frames(probe(tmp_path / "00003.mp4")))) == 28
    make_clip(tmp_path, 3)
    assert (tmp_path / "00003.mp4").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["00003.mp4"]


def test_a_clip_that_was_cut_off_does_not_count_as_written(tmp_path):
    make_clip(tmp_path, 3)
    whole = tmp_path / "00003.mp4"
    with pytest.raises(EncoderError, match="28 of 29 frames"):
        check_whole(whole, 29)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(EncoderError, match=r"cut\.mp4"):
        check_whole(cut, 28)
