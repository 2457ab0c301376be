"""The list of a training set: what is in, what is left out and why, exit codes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.sources import find_sources
from finetune.scripts import prepare_dataset
from finetune.scripts.prepare_dataset import main
from tests.media import clip


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "set" / "b").mkdir(parents=True)
    clip(tmp_path / "set" / "b" / "one.mp4")
    clip(tmp_path / "set" / "two.mkv")
    return tmp_path / "set"


def test_a_good_folder_gives_a_sorted_list_of_relative_paths(folder, capsys):
    assert main(["--dir", f"{folder}/"]) == 0
    listing = folder.parent / "set.txt"
    assert listing.read_text() == "set/b/one.mp4\nset/two.mkv\n"
    assert find_sources(listing, "video") == [folder / "b" / "one.mp4", folder / "two.mkv"]
    assert "2 videos in, 0 left out" in capsys.readouterr().out


def test_the_list_may_lie_elsewhere(folder, tmp_path):
    assert main([f"--dir={folder}", f"--save={tmp_path}/lists/mine.txt"]) == 0
    assert (tmp_path / "lists" / "mine.txt").read_text() == "../set/b/one.mp4\n../set/two.mkv\n"
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["mine.txt"]
    assert all(file.is_file() for file in find_sources(tmp_path / "lists" / "mine.txt", "video"))


def test_every_bad_file_is_named_with_its_reason_and_left_out(folder, capsys):
    whole = clip(folder / "whole.mp4", "-movflags", "+faststart", size="160x96", seconds="2").read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    clip(folder / "short.mp4", seconds="0.2")
    clip(folder / "small.mp4", size="32x32")
    flags = ["--min_frames=10", "--min_height=48", "--min_width=64"]
    assert main([f"--dir={folder}", *flags]) == 7
    assert (folder.parent / "set.txt").read_text() == "set/b/one.mp4\nset/two.mkv\nset/whole.mp4\n"
    out, err = capsys.readouterr()
    assert "3 videos in, 5 left out" in out
    for reason in (
        "half.mp4: damaged or cut off",
        "text.mp4: not a video file",
        "empty.mp4: the file is empty",
        "short.mp4: too short: 5 frames, expected at least 10",
        "small.mp4: too small: 32x32, expected at least 64x48",
    ):
        assert reason in err


def test_images_are_listed_where_there_are_no_videos(tmp_path):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "photos" / "b.png").write_text("no image")
    assert main([f"--dir={tmp_path}/photos", "--min_frames=25"]) == 7  # images have no length
    assert (tmp_path / "photos.txt").read_text() == "photos/a.png\n"


def test_images_beside_videos_are_mentioned(folder, capsys):
    cv2.imwrite(str(folder / "poster.png"), np.zeros((40, 40, 3), np.uint8))
    assert main([f"--dir={folder}"]) == 0
    assert "1 images are not in the list" in capsys.readouterr().out


@pytest.mark.parametrize("save", ["list.csv", "file/list.txt"])
def test_a_list_that_cannot_be_written_or_used_is_told_first(folder, tmp_path, save, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("finetune.scripts.prepare_dataset.check", None)
    assert main([f"--dir={folder}", f"--save={tmp_path}/{save}"]) == 2
    assert save in capsys.readouterr().err


def test_nothing_left_is_an_error_and_an_old_list_stays(folder, tmp_path, capsys):
    (tmp_path / "set.txt").write_text("old\n")
    assert main([f"--dir={folder}", "--min_frames=1000"]) == 3
    assert (tmp_path / "set.txt").read_text() == "old\n"
    assert main([f"--dir={tmp_path}/nowhere"]) == 3
    (tmp_path / "bare").mkdir()
    assert main([f"--dir={tmp_path}/bare"]) == 3
    err = capsys.readouterr().err
    assert "none of its 2 files can be used" in err and "nowhere: no such folder" in err
    assert "bare: holds no video and no image" in err


def test_a_list_never_promises_frames_that_training_cannot_reach(folder, monkeypatch, capsys):
    monkeypatch.setattr(prepare_dataset, "open_clip", lambda path: range(11))
    assert main([f"--dir={folder}"]) == 3
    assert "its index lists 11 frames, but it has 10" in capsys.readouterr().err
