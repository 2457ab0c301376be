"""From files to batches: which samples, which frames, the same bytes for any number of workers and processes."""

import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from finetune.data import clips as clips_module
from finetune.data.clips import DecordClip, PyavClip, open_clip
from finetune.data.config import DataConfig
from finetune.data.dataset import CONTEXT_FRAMES, PairDataset
from finetune.data.degradation.config import PRESETS
from finetune.data.sampler import StepSampler, training_loader
from finetune.data.sources import find_sources
from tests.media import clip, ffmpeg, pixels_of
from vsr.errors import InputError, UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Five videos and three images, of several sizes and lengths."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos" / "deep").mkdir(parents=True)
    (folder / "images").mkdir()
    for i, size in enumerate(["64x48", "80x64", "48x96", "96x64"]):
        clip(folder / "videos" / f"clip {i}.mp4", size=size, seconds=str(0.4 + 0.2 * i))
    clip(folder / "videos" / "deep" / "clip.mkv")
    for i in range(3):
        picture = np.random.default_rng(i).integers(0, 256, (60 + i, 70, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), cv2.GaussianBlur(picture, (0, 0), 2))
    return folder


def config_of(folder: Path, **changes: object) -> DataConfig:
    settings = {"videos": folder / "videos", "images": folder / "images", "image_ratio": 0.5}
    return DataConfig(**{**settings, "frames": 5, "height": 32, "width": 48, "workers": 0, **changes})


def keys_of(**settings: object) -> list[list[tuple[str, int]]]:
    return list(StepSampler(**{"seed": 7, "batch_size": 2, "image_ratio": 0.5, "steps": 6, **settings}))


def bytes_of(loader) -> list[tuple[str, bytes, bytes]]:
    return [(batch["kind"], batch["x_lq"].numpy().tobytes(), batch["x_gt"].numpy().tobytes()) for batch in loader]


# ------------------------------------------------------------------------------------------------ which samples


def test_two_processes_with_batch_1_see_what_one_with_batch_2_sees():
    one = keys_of()
    ranks = [keys_of(batch_size=1, world_size=2, rank=rank) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == one
    accumulated = keys_of(batch_size=1, accumulation=2)
    assert [accumulated[i] + accumulated[i + 1] for i in range(0, 12, 2)] == one


def test_every_sample_number_is_used_once():
    settings = {"batch_size": 2, "world_size": 3, "accumulation": 2, "image_ratio": 0.0, "steps": 5}
    numbers = [n for rank in range(3) for keys in keys_of(rank=rank, **settings) for _, n in keys]
    assert sorted(numbers) == list(range(5 * 12))


@pytest.mark.parametrize("start", [1, 4, 6])
def test_a_resumed_run_sees_what_the_unbroken_one_sees(start):
    settings = {"accumulation": 2, "batch_size": 3}
    assert keys_of(start_step=start, **settings) == keys_of(**settings)[2 * start :]
    assert len(StepSampler(seed=7, batch_size=3, accumulation=2, start_step=start, steps=6)) == 2 * (6 - start)


def test_a_run_that_goes_on_with_more_processes_repeats_and_skips_no_sample():
    settings = {"batch_size": 2, "image_ratio": 0.0}
    before = [n for keys in keys_of(steps=3, **settings) for _, n in keys]
    after = keys_of(start_step=3, first_sample=len(before), steps=5, accumulation=2, **settings)
    assert before + [n for keys in after for _, n in keys] == list(range(3 * 2 + 2 * 4))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_area_that_is_degraded_has_whole_low_quality_pixels(data, scale):
    config = config_of(data, scale=scale, height=48, width=48, videos=None, image_ratio=1.0)
    assert PairDataset(config, seed=1)["image", 0]["x_gt"].shape[-2:] == (48, 48)


def test_a_step_is_of_one_kind_and_the_share_of_image_steps_is_the_ratio():
    for keys in zip(*(keys_of(world_size=2, rank=rank, accumulation=2) for rank in range(2)), strict=True):
        assert len({kind for rank in keys for kind, _ in rank}) == 1
    kinds = [keys[0][0] for keys in keys_of(batch_size=1, image_ratio=0.8, steps=5000)]
    assert kinds.count("image") / 5000 == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 5000) ** 0.5)
    assert {keys[0][0] for keys in keys_of(image_ratio=0.0)} == {"video"}
    assert {keys[0][0] for keys in keys_of(image_ratio=1.0)} == {"image"}


def test_each_epoch_is_a_permutation_of_the_files_of_its_kind(data):
    dataset = PairDataset(config_of(data), seed=1)
    for kind, count in (("video", 5), ("image", 3)):
        epochs = [[dataset.source_of(kind, count * epoch + i) for i in range(count)] for epoch in range(8)]
        assert all(len(set(files)) == count for files in epochs)
        assert len(set(map(tuple, epochs))) > 1


# ------------------------------------------------------------------------------------------------ what they hold


def test_a_pair_has_one_shape_and_range(data):
    dataset = PairDataset(config_of(data), seed=1)
    for kind, frames in (("video", 5), ("image", 1)):
        for n in range(6):
            sample = dataset[kind, n]
            for x in (sample["x_lq"], sample["x_gt"]):
                assert x.shape == (3, frames, 32, 48) and x.dtype == torch.float32
                assert -1 <= x.min() < x.max() <= 1
            assert sample["kind"] == kind


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # more than this machine has cores
@pytest.mark.parametrize("degradation", ["realbasicvsr", "dove"])
def test_bytes_do_not_depend_on_the_number_of_workers(data, degradation):
    expected = None
    for workers in (0, 0, 1, 4):
        config = config_of(data, workers=workers, degradation=degradation)
        found = bytes_of(training_loader(config, 3, 2, steps=6))
        expected = expected or found
        assert found == expected
    assert {kind for kind, _, _ in expected} == {"video", "image"}


def test_bytes_do_not_depend_on_the_number_of_threads(tmp_path):
    """At the size of real crops, where OpenCV and torch do divide the work."""
    clip(tmp_path / "a.mp4", size="960x480", seconds="0.2")
    photo = np.random.default_rng(0).integers(0, 256, (480, 960, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.GaussianBlur(photo, (0, 0), 2))
    dataset = PairDataset(
        config_of(tmp_path, videos=tmp_path, images=tmp_path, frames=2, height=320, width=640), seed=1
    )
    before, found = (cv2.getNumThreads(), torch.get_num_threads()), []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)
        found.append([dataset[key]["x_lq"] for key in [("image", 0), ("image", 1), ("image", 2), ("video", 0)]])
        assert torch.get_num_threads() == threads
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_two_processes_and_a_resumed_run_get_the_same_bytes(data):
    config = config_of(data)
    whole = [batch["x_lq"] for batch in training_loader(config, 3, 2, steps=4)]
    ranks = [training_loader(config, 3, 1, world_size=2, rank=rank, steps=4) for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert torch.equal(batch, torch.cat([first["x_lq"], second["x_lq"]]))
    rest = [batch["x_lq"] for batch in training_loader(config, 3, 2, start_step=2, steps=4)]
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
    other = next(iter(training_loader(config, 4, 2, steps=1)))
    assert not torch.equal(whole[0][0, :, 0], other["x_lq"][0, :, 0])


def test_global_random_states_are_neither_read_nor_changed(data):
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first = bytes_of(training_loader(config_of(data), 3, 1, steps=3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()
    torch.manual_seed(99)
    assert bytes_of(training_loader(config_of(data), 3, 1, steps=3)) == first


def gentle(folder: Path) -> Path:
    """A degradation that does next to nothing but reduce by 4."""
    tree = yaml.safe_load((PRESETS / "realbasicvsr.yaml").read_text())
    for stage in (tree["first"], tree["second"]):
        stage["blur"]["probability"] = 0.0
        stage["resize"].update(up=0.0, down=0.0, keep=1.0, factor={"low": 1.0, "high": 1.0, "step": 0})
        stage["noise"].update(gaussian=1.0, sigma={"low": 0.0, "high": 0.1, "step": 0})
        stage.update(jpeg=None, codec=None)
    tree["final"].update(codec=None, sinc={**tree["final"]["sinc"], "probability": 0.0})
    tree["interpolations"] = ["area"]
    path = folder / "gentle.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_low_quality_and_ground_truth_show_the_same_place_and_time(data, tmp_path, mode):
    changes = {"degradation": str(gentle(tmp_path)), "image_ratio": 0.0, "upscale_mode": mode}
    dataset = PairDataset(config_of(data, **changes), seed=1)
    for n in range(10):
        sample = dataset["video", n]
        reduced = torch.nn.functional.avg_pool2d(sample["x_gt"].transpose(0, 1), 4)
        expected = torch.nn.functional.interpolate(reduced, scale_factor=4, mode=mode).clamp(-1, 1)
        difference = (sample["x_lq"].transpose(0, 1) - expected).abs().max()
        assert difference < 2 / 127.5  # two levels: rounding and noise


def test_only_the_needed_frames_are_decoded(tmp_path, monkeypatch):
    path = clip(tmp_path / "long.mp4", seconds="4")
    asked = []

    class Recorder:
        def __init__(self, path: Path) -> None:
            self._clip = open_clip(path)

        def __len__(self) -> int:
            return len(self._clip)

        def frames(self, start, count):
            asked.append((start, count))
            return self._clip.frames(start, count)

    monkeypatch.setattr(clips_module, "open_clip", Recorder)
    dataset = PairDataset(config_of(tmp_path, videos=path.parent, image_ratio=0.0), seed=1)
    for n in range(8):
        assert dataset["video", n]["x_gt"].shape[1] == 5
    assert {count for _, count in asked} == {5 + CONTEXT_FRAMES}
    assert len({start for start, _ in asked}) > 4


def test_only_the_kind_in_use_is_decoded(data, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    dataset = PairDataset(config_of(data, images=tmp_path), seed=1)
    assert dataset["video", 0]["kind"] == "video"
    with pytest.raises(InputError, match=r"broken.png: not an image"):
        dataset["image", 0]


def test_the_benchmark_measures_every_part(data):
    flags = ["--frames=3", "--height=16", "--width=16", "--samples=1", f"--videos={data}/videos"]
    command = [sys.executable, "-m", "benchmarks.data", *flags]  # in a process of its own: it sets thread counts
    done = subprocess.run(command, cwd=PRESETS.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("13 needed frames", "whole clips", "realbasicvsr: Blur", "realbasicvsr: all", "loader, 2 workers"):
        assert part in done.stdout


# ------------------------------------------------------------------------------------------------ frames of a clip


TIMED_CLIPS = ("clip.mp4", "clip.mkv", "turned.mp4")


@pytest.mark.parametrize(
    ("reader", "name"),
    [*((DecordClip, name) for name in TIMED_CLIPS), *((PyavClip, name) for name in (*TIMED_CLIPS, "clip.avi"))],
)
def test_random_access_gives_the_frames_that_reading_in_order_gives(tmp_path, reader, name):
    pytest.importorskip("decord")
    path = tmp_path / name
    plain = clip(tmp_path / f"plain{path.suffix}", "-c:v", "libx264", "-g", "12", "-pix_fmt", "yuv444p", seconds="2")
    turn = ["-display_rotation", "90"] if name == "turned.mp4" else []
    ffmpeg(*turn, "-i", plain, "-c", "copy", path)
    expected = pixels_of(path)
    opened = open_clip(path) if reader is DecordClip else PyavClip(path)
    assert type(opened) is reader and len(opened) == 50
    for start, count in ((0, 3), (17, 20), (49, 1), (30, 5)):
        found = np.stack(list(opened.frames(start, count)))
        assert np.abs(found.astype(int) - expected[start : start + count]).mean() < 1


def test_frames_that_a_cut_has_hidden_are_not_given(tmp_path):
    """decord counts them, and repeats the last frame in their place."""
    pytest.importorskip("decord")
    plain = clip(tmp_path / "plain.mp4", "-c:v", "libx264", "-g", "25", "-pix_fmt", "yuv444p", seconds="2")
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.7", "-i", plain, "-c", "copy", cut)
    expected, opened = pixels_of(cut), open_clip(cut)
    assert len(opened) == len(expected)
    assert np.abs(np.stack(list(opened.frames(0, len(opened)))).astype(int) - expected).mean() < 1


def test_decord_does_not_read_what_it_would_move_the_colours_of(tmp_path):
    """By half a pixel, or, where a large video states no matrix, to another one than inference assumes."""
    pytest.importorskip("decord")
    moved = clip(tmp_path / "clip.webm", "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p")
    large = clip(tmp_path / "large.mp4", "-pix_fmt", "yuv420p", size="64x720", seconds="0.2")
    small = clip(tmp_path / "small.mp4", "-pix_fmt", "yuv420p", size="64x360", seconds="0.2")
    tagged = tmp_path / "tagged.mp4"
    ffmpeg("-i", large, "-c", "copy", "-bsf:v", "h264_metadata=matrix_coefficients=1", tagged)
    kinds = {path.stem: type(open_clip(path)) for path in (moved, large, small, tagged)}
    assert kinds == {"clip": PyavClip, "large": PyavClip, "small": DecordClip, "tagged": DecordClip}


def test_what_decord_cannot_read_is_read_by_pyav(tmp_path, monkeypatch):
    av1 = clip(tmp_path / "av1.mkv", "-c:v", "libsvtav1", "-svtav1-params", "log=0:preset=12", seconds="0.5")
    assert type(open_clip(av1)) is PyavClip
    np.testing.assert_array_equal(np.stack(list(open_clip(av1).frames(7, 4))), pixels_of(av1)[7:11])
    plain = clip(tmp_path / "plain.mp4")
    assert type(open_clip(clip(tmp_path / "plain.avi"))) is PyavClip
    monkeypatch.setitem(sys.modules, "decord", None)  # as on machines without it
    assert type(open_clip(plain)) is PyavClip


def test_ten_bits_become_eight(tmp_path):
    deep = clip(tmp_path / "deep.mp4", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none")
    found = np.stack(list(PyavClip(deep).frames(2, 3)))
    assert found.dtype == np.uint8
    assert np.abs(found - pixels_of(deep)[2:5] / 257).max() <= 0.5


def cut_off(path: Path, whole: Path, *, zeros: bool = False) -> Path:
    """The first half of a file, or all of it with zeros for its second half."""
    data = whole.read_bytes()
    kept = data[: len(data) // 2]
    path.write_bytes(kept + bytes(len(data) - len(kept)) if zeros else kept)
    return path


@pytest.mark.parametrize("zeros", [False, True])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, zeros):
    whole = clip(tmp_path / "whole.mp4", "-movflags", "+faststart", size="160x96", seconds="2")
    (tmp_path / "videos").mkdir()
    cut_off(tmp_path / "videos" / "half.mp4", whole, zeros=zeros)
    dataset = PairDataset(config_of(tmp_path, image_ratio=0.0, frames=45), seed=1)
    with pytest.raises(InputError, match=r"half.mp4: (damaged or cut off|cut off)"):
        dataset["video", 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 60}, r"clip 0.mp4: has 10 frames, fewer than the 60 .*--min_frames 60"),
        ({"height": 64}, r"clip 0.mp4: is 64x48, smaller than the crop of 48x64; .*--min_height 64 --min_width 48"),
    ],
)
def test_a_clip_that_is_too_short_or_small_is_an_error(data, tmp_path, changes, message):
    (tmp_path / "list.txt").write_text(f"{data}/videos/clip 0.mp4\n")
    dataset = PairDataset(config_of(data, videos=tmp_path / "list.txt", image_ratio=0.0, **changes), seed=1)
    with pytest.raises(InputError, match=message):
        dataset["video", 0]


def test_an_error_in_a_worker_names_the_file(data, tmp_path):
    (tmp_path / "list.txt").write_text("gone.mp4\n")
    config = config_of(data, videos=tmp_path / "list.txt", image_ratio=0.0, workers=1)
    with pytest.raises(InputError, match=r"gone.mp4: no such file"):
        next(iter(training_loader(config, 3, 1, steps=1)))


# ------------------------------------------------------------------------------------------------ what is named


def test_folders_are_searched_recursively_and_lists_are_relative_to_themselves(data):
    videos = find_sources(data / "videos", "video")
    assert [file.name for file in videos] == [*(f"clip {i}.mp4" for i in range(4)), "clip.mkv"]
    listing = data / "list.txt"
    listing.write_text("videos/deep/clip.mkv\r\n\nvideos/clip 0.mp4\n")
    assert find_sources(listing, "video") == [videos[4], videos[0]]
    with pytest.raises(InputError, match=r"clip.mkv is no image"):
        find_sources(listing, "image")
    with pytest.raises(InputError, match="names no image"):
        find_sources(data / "videos", "image")
    with pytest.raises(InputError, match=r"gone.txt: cannot be read: No such file"):
        find_sources(data / "gone.txt", "video")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ratio": 1.5}, r"image_ratio: expected a fraction in \[0, 1\], got 1.5"),
        ({"images": None}, "image_ratio is 0.5, but images is not set"),
        ({"videos": None}, "image_ratio is 0.5, but videos is not set"),
        ({"height": 40}, "height: expected a multiple of 16 .*, got 40; write 32"),
        ({"width": 0}, "width: expected a multiple of 16 .*, got 0; write 16"),
        ({"scale": 3}, r"height: expected a multiple of scale \(3\), got 32"),
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"workers": -1}, "workers: expected at least 0, got -1"),
        ({"upscale_mode": "lanczos"}, "upscale_mode: expected one of bilinear, bicubic, .*, got 'lanczos'"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_write(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        config_of(tmp_path, **changes)
