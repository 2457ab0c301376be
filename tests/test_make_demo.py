"""The demo clips: reproducible, small, inside their photographs, and the stored ones are what the script makes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.synthetic.files import encode
from finetune.data.synthetic.pictures import photograph
from finetune.scripts import make_demo, make_held_out
from vsr.video_io import find_inputs, probe, read_frames

DEMO = Path(__file__).parents[1] / "datasets" / "demo"
SHOT = {shot.name: shot for shot in make_demo.SHOTS}
NAMES = sorted(SHOT)


def film(name: str) -> np.ndarray:
    return SHOT[name].frames(make_demo.SIZE, make_demo.FRAMES)


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
    x_gt = film(name)
    x_lq = make_demo.degrade(x_gt, SHOT[name].generator())
    assert psnr(decode(DEMO / "GT-Video" / f"{name}.mp4"), x_gt) > 38
    assert psnr(decode(DEMO / "LQ-Video" / f"{name}.mp4"), x_lq) > 42


def test_the_same_seed_gives_the_same_files(tmp_path):
    x_gt = film("rocket")[:12]
    for run in ("first", "second"):
        x_lq = make_demo.degrade(x_gt, SHOT["rocket"].generator())
        for folder, frames in (("GT", x_gt), ("LQ", x_lq)):
            encode(tmp_path / run / f"{folder}.mp4", frames, crf=12)
    for file in ("GT.mp4", "LQ.mp4"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
        assert len(decode(tmp_path / "first" / file)) == 12


def test_clips_do_not_hang_on_the_kernels_that_opencv_takes_from_ipp():
    def clip(ipp):
        cv2.ipp.setUseIPP(ipp)
        x_gt = film("chelsea")[:9]
        return make_demo.degrade(x_gt, SHOT["chelsea"].generator())

    before = cv2.ipp.useIPP()
    try:
        assert np.array_equal(clip(ipp=True), clip(ipp=False))
    finally:
        cv2.ipp.setUseIPP(before)


def test_degradations_differ_between_clips():
    gray = np.full((12, 64, 64, 3), 128, np.uint8)
    first, second = (make_demo.degrade(gray, SHOT[name].generator()) for name in ("coffee", "rocket"))
    assert first.shape == (12, 16, 16, 3)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("shot", "size", "frames"),
    [(shot, make_demo.SIZE, make_demo.FRAMES) for shot in make_demo.SHOTS]
    + [(shot, make_held_out.SIZE, make_held_out.FRAMES) for shot in make_held_out.shots()],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_camera_never_leaves_the_photograph_and_never_enlarges_it(shot, size, frames):
    height, width = photograph(shot.photo).shape[:2]
    right, bottom = size[0] - 1, size[1] - 1
    corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    for frame in range(frames):
        matrix = shot.move.matrix((width, height), size, frame, frames)
        x, y = matrix @ corners
        assert x.min() >= 0 and x.max() <= width - 1
        assert y.min() >= 0 and y.max() <= height - 1
        assert np.sqrt(np.linalg.det(matrix[:, :2])) >= 0.95


def test_a_file_over_the_limit_is_encoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(make_demo, "SIZE_LIMIT", 20_000)
    assert make_demo.encode_within_limit(tmp_path / "clip.mp4", film("chelsea")[:2]) > 0
    assert (tmp_path / "clip.mp4").stat().st_size <= 20_000
