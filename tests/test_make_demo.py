"""The demo clips: reproducible, small, inside their photographs, and the stored ones are what the script makes."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from finetune.scripts import make_demo
from vsr.video_io import find_inputs, probe, read_frames

DEMO = Path(__file__).parents[1] / "datasets" / "demo"
NAMES = ["astronaut", "chelsea", "coffee", "rocket"]
SHOT = {shot.photo: shot for shot in make_demo.SHOTS}


def film(name: str, frames: int) -> list[np.ndarray]:
    return list(islice(make_demo.film(getattr(data, name)(), SHOT[name]), frames))


def decode(path: Path) -> np.ndarray:
    return np.stack([frame.pixels for frame in read_frames(probe(path))])


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(x.astype(float) - y).mean())


@pytest.mark.parametrize(("folder", "size"), [("GT-Video", (384, 256)), ("LQ-Video", (96, 64))])
def test_stored_clips_have_the_promised_size_length_rate_and_weight(folder, size):
    paths = find_inputs(DEMO / folder)
    assert [path.stem for path in paths] == NAMES
    for path in paths:
        info = probe(path)
        assert (info.width, info.height) == size
        assert (info.matrix, info.primaries, info.transfer, info.full_range) == ("bt709", 1, 1, False)
        assert info.rate == 24
        assert len(decode(path)) == 33
        assert path.stat().st_size < 250_000


@pytest.mark.parametrize("name", NAMES)
def test_stored_clips_are_what_the_script_makes(name):
    x_gt = film(name, 3)
    x_lq = list(make_demo.degrade(x_gt, make_demo.noise_seed(SHOT[name])))
    assert psnr(decode(DEMO / "GT-Video" / f"{name}.mp4")[:3], np.stack(x_gt)) > 40
    assert psnr(decode(DEMO / "LQ-Video" / f"{name}.mp4")[:3], np.stack(x_lq)) > 50


def test_the_same_seed_gives_the_same_files(tmp_path):
    x_gt = film("rocket", 4)
    for run in ("first", "second"):
        x_lq = list(make_demo.degrade(film("rocket", 4), make_demo.noise_seed(SHOT["rocket"])))
        for folder, frames in (("GT", x_gt), ("LQ", x_lq)):
            make_demo.encode(tmp_path / run / f"{folder}.mp4", frames, crf=12)
    for file in ("GT.mp4", "LQ.mp4"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
        assert len(decode(tmp_path / "first" / file)) == 4


def test_noise_differs_between_clips_and_frames():
    gray = [np.full((64, 64, 3), 128, np.uint8)] * 2
    first, second = (list(make_demo.degrade(gray, make_demo.noise_seed(SHOT[name]))) for name in ("coffee", "rocket"))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_camera_never_leaves_the_photograph_and_never_enlarges_it(name):
    height, width = getattr(data, name)().shape[:2]
    right, bottom = make_demo.WIDTH - 1, make_demo.HEIGHT - 1
    corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    for frame in range(make_demo.FRAMES):
        matrix = make_demo.camera_position(SHOT[name], (width, height), frame)
        x, y = matrix @ corners
        assert x.min() >= 0 and x.max() <= width - 1
        assert y.min() >= 0 and y.max() <= height - 1
        assert np.sqrt(np.linalg.det(matrix[:, :2])) >= 1


def test_a_file_over_the_limit_is_encoded_again(tmp_path, monkeypatch):
    frames = film("chelsea", 2)
    monkeypatch.setattr(make_demo, "SIZE_LIMIT", 20_000)
    assert make_demo.encode_within_limit(tmp_path / "clip.mp4", frames) > 0
    assert (tmp_path / "clip.mp4").stat().st_size <= 20_000
