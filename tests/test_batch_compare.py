"""Many files beside their ground truth: comparisons, scores, and what pairs with what."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

import eval_metrics
from tests.media import clip, clip_with_sound, ffmpeg, pixels_of, times_of, variable_rate
from vsr import batch
from vsr.errors import InputError
from vsr.video_io import probe


def report_of(tmp_path):
    return json.loads((tmp_path / "out" / "report.json").read_text())["files"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_comparison_and_scores(tmp_path, restore, capsys):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    (tmp_path / "gt").mkdir()
    clip(tmp_path / "gt" / "one.mp4", size="64x48")
    truth = f"--gt_dir={tmp_path / 'gt'}"
    assert restore("--compare", truth, "--eval_metrics=psnr,ssim") == 0
    compared = tmp_path / "out" / "compare"
    assert names_in(compared) == ["one.mp4", "one.png"]
    assert probe(compared / "one.mp4").width == 3 * 64
    assert times_of(compared / "one.mp4") == times_of(tmp_path / "in" / "one.mp4")
    assert "bicubic" in capsys.readouterr().out
    assert "one" in (tmp_path / "out" / "metrics.json").read_text()
    shutil.rmtree(compared)
    assert restore("--compare", truth) == 0  # nothing is left to restore, but this is
    assert names_in(compared) == ["one.mp4", "one.png"]


def test_scores_are_computed_where_the_model_ran(tmp_path, restore, monkeypatch):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    (tmp_path / "gt").mkdir()
    clip(tmp_path / "gt" / "one.mp4", size="64x48")
    given, score = [], batch.score_pairs
    monkeypatch.setattr(batch, "own_device", lambda *_: torch.device("cpu:0"))
    monkeypatch.setattr(batch, "score_pairs", lambda *a, **k: (given.append(k["settings"]), score(*a, **k))[1])
    assert restore(f"--gt_dir={tmp_path / 'gt'}", "--eval_metrics=psnr", "--untagged=709") == 0
    assert [(settings.device, settings.untagged) for settings in given] == [("cpu:0", "709")]


def test_the_matrix_that_is_stated_holds_for_the_ground_truth_of_a_comparison(tmp_path, restore, monkeypatch):
    for folder, size in (("in", "32x24"), ("gt", "64x48")):
        (tmp_path / folder).mkdir(exist_ok=True)
        red = ("-f", "lavfi", "-i", f"color=red:size={size}:duration=0.4")
        ffmpeg(*red, "-pix_fmt", "yuv444p", "-c:v", "libx264", tmp_path / folder / "one.mp4")
    scored = []
    monkeypatch.setattr(batch, "comparison_table", lambda scores: scored.append(scores["one"]["bicubic"]) or "")
    for matrix in ("601", "709"):
        assert restore("--compare", f"--gt_dir={tmp_path / 'gt'}", f"--untagged={matrix}", "--overwrite") == 0
    assert scored[0]["psnr"] == pytest.approx(scored[1]["psnr"], abs=1)  # source and truth are read alike


def test_a_comparison_with_frames_as_png_has_the_times_of_the_source(tmp_path, restore):
    source = variable_rate(tmp_path / "in" / "one.mp4")
    assert restore("--compare", "--png_save") == 0
    assert times_of(tmp_path / "out" / "compare" / "one.mp4") == times_of(source)


def test_comparisons_of_one_stem_are_refused_before_the_work(tmp_path, restore, caplog):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    clip_with_sound(tmp_path / "in" / "one.mov", "-c:a", "pcm_s16le")
    assert restore("--compare") == 2
    assert "one stem" in caplog.text
    assert restore("--dry_run") == 0


@pytest.mark.parametrize("size", ["62x48", "64x46"])
def test_ground_truth_of_another_size_is_refused_before_the_work(tmp_path, restore, size):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    (tmp_path / "gt").mkdir()
    clip(tmp_path / "gt" / "one.mp4", size=size)
    assert restore("--compare", f"--gt_dir={tmp_path / 'gt'}") == 3
    clip(tmp_path / "gt" / "one.mp4", size="64x48", seconds="0.36")
    assert restore("--compare", f"--gt_dir={tmp_path / 'gt'}") == 3
    (tmp_path / "gt" / "one.mp4").rename(tmp_path / "gt" / "two.mp4")
    assert restore("--compare", f"--gt_dir={tmp_path / 'gt'}") == 2
    assert not (tmp_path / "out").exists()


def test_a_comparison_that_fails_leaves_the_result_finished(tmp_path, restore, monkeypatch):
    clip(tmp_path / "in" / "one.mp4", size="32x24")

    def fail(*args):
        raise InputError("cannot compare")

    monkeypatch.setattr("vsr.batch.compare", fail)
    assert restore("--compare") == 7
    monkeypatch.undo()
    assert report_of(tmp_path)["one.mp4"]["status"] == "done"
    assert restore("--compare") == 0


def test_folders_of_frames_pair_and_compare_by_their_whole_names(tmp_path, restore):
    frames = pixels_of(clip(tmp_path / "one.mp4", size="32x24"))[:3]
    for name in ("scene.01", "scene.02"):
        for folder, scale in ((tmp_path / "in", 1), (tmp_path / "gt", 2)):
            (folder / name).mkdir(parents=True)
            for i, frame in enumerate(frames):
                large = cv2.resize(frame, None, fx=scale, fy=scale)
                cv2.imwrite(str(folder / name / f"{i:03d}.png"), large)
    assert restore("--png_save", "--compare", f"--gt_dir={tmp_path / 'gt'}", "--eval_metrics=psnr") == 0
    assert names_in(tmp_path / "out" / "compare") == ["scene.01.mp4", "scene.01.png", "scene.02.mp4", "scene.02.png"]


def test_comparisons_of_images_are_not_scored(tmp_path, restore):
    (tmp_path / "gt").mkdir()
    for name in ("bird", "tree"):
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), np.full((24, 32, 3), 99, np.uint8))
        cv2.imwrite(str(tmp_path / "gt" / f"{name}.png"), np.full((48, 64, 3), 99, np.uint8))
    assert restore("--compare") == 0
    assert (tmp_path / "out" / "compare").is_dir()
    assert eval_metrics.main([f"--pred={tmp_path / 'out'}", f"--gt={tmp_path / 'gt'}"]) == 0
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["videos"].keys() == {"bird", "tree"}


def test_images_pair_with_images(tmp_path, restore):
    rng = np.random.default_rng(0)
    (tmp_path / "gt").mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / "in" / f"{i:04d}.png"), rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        cv2.imwrite(str(tmp_path / "gt" / f"{i:04d}.png"), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    flags = ["--image_folder=images", f"--gt_dir={tmp_path / 'gt'}", "--eval_metrics=psnr", "--compare"]
    assert restore(*flags) == 0
    assert names_in(tmp_path / "out" / "compare") == ["0000.png", "0001.png"]


def test_deep_sources_and_lossless_results_are_compared(tmp_path, restore):
    clip(tmp_path / "in" / "one.mp4", "-pix_fmt", "yuv420p10le", "-c:v", "libx265", size="32x24")
    assert restore("--compare", "--save_format=yuv420p10le") == 0
    assert restore("--compare", "--save_format=rgb") == 0
    assert (tmp_path / "out" / "compare" / "one.mp4").is_file()
