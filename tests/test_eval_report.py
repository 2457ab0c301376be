"""The report of a scoring run: what is in it, where it lands, and that nothing of it is lost."""

import json
import os
from pathlib import Path

import pytest
import torch

import eval_metrics
from tests.scoring import frame_metric, make_clip, run, two_clips, with_noise, write_frame_folder, write_video
from vsr.errors import UsageError
from vsr.metrics import METRICS
from vsr.metrics.image import psnr


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return two_clips(tmp_path)


def test_report_names_versions_definitions_and_settings(folders):
    _, report = run(*folders, "--metrics", "psnr", "--crop", "2", "--test_y_channel", "--every", "2")
    assert set(report["definitions"]) == {"psnr"}
    for part in ("mse + 1e-8", "BT.601", "crop 2", "mean of frames"):
        assert part in report["definitions"]["psnr"]
    assert report["settings"].items() >= {"metrics": ["psnr"], "crop": 2, "test_y_channel": True, "every": 2}.items()
    assert set(report["versions"]) == {"one-step-vsr", "python", "torch", "numpy", "cv2", "av"}
    assert report["versions"]["torch"] == torch.__version__
    assert report["videos"]["ant"]["psnr"]["count"] == 2  # frames 0 and 2 of three
    clip, noisy = make_clip(), with_noise(make_clip(), 2)
    assert report["videos"]["ant"]["psnr"]["mean"] == pytest.approx(
        psnr(*(torch.from_numpy(x[::2]).permute(0, 3, 1, 2) / 255 for x in (noisy, clip)), crop=2, test_y_channel=True)
        .mean()
        .item()
    )


def test_after_an_interruption_the_report_has_what_was_scored(folders, monkeypatch):
    def interrupted(x, y):
        interrupted.calls += 1
        if interrupted.calls > 3:  # a clip has three frames
            raise KeyboardInterrupt
        return x.mean(dim=(1, 2, 3))

    interrupted.calls = 0
    monkeypatch.setitem(METRICS, "slow", frame_metric("slow", interrupted))
    code, report = run(*folders, "--metrics", "psnr,slow")
    assert code == 130
    assert list(report["videos"]) == ["ant"]
    assert [(failure["name"], failure["reason"]) for failure in report["failures"]] == [
        ("bee", "not scored: interrupted")
    ]


def test_a_report_that_cannot_be_written_is_told_before_scoring(folders, monkeypatch, capsys):
    monkeypatch.setattr(eval_metrics, "score", None)
    (folders[0].parent / "file").write_text("")
    for flag in ("--out", "--csv"):
        wrong = ["--pred", str(folders[0]), "--gt", str(folders[1]), flag, str(folders[0].parent / "file" / "x.json")]
        assert eval_metrics.main(wrong) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert eval_metrics.main(["--pred", str(folders[0]), "--gt", str(folders[1]), "--csv", str(folders[0])]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_written_escaped(folders, tmp_path):
    for folder, name in zip(folders, (b"ant\xff.mkv", b"ant\xff"), strict=True):
        (folder / f"ant{Path(os.fsdecode(name)).suffix}").rename(folder / os.fsdecode(name))
    code, report = run(*folders, "--csv", str(tmp_path / "table.csv"))
    assert code == 0 and len(report["videos"]) == 2
    assert "ant\\udcff," in (tmp_path / "table.csv").read_text()


def test_the_report_lands_beside_the_predictions_and_is_no_clip_of_the_next_run(folders):
    pred, gt = folders
    for _ in range(2):
        assert eval_metrics.main(["--pred", str(pred), "--gt", str(gt)]) == 0
    assert json.loads((pred / "metrics.json").read_text())["failures"] == []
    assert not list(pred.glob(".*partial*"))


def test_the_report_of_a_folder_of_frames_lands_beside_it(tmp_path):
    pred, gt = (write_frame_folder(tmp_path / name / "walk", make_clip()) for name in ("pred", "gt"))
    assert eval_metrics.main(["--pred", str(pred), "--gt", str(gt)]) == 0
    assert (tmp_path / "pred" / "metrics.json").is_file()
    assert not (pred / "metrics.json").exists()


def test_a_failed_write_leaves_the_old_report(folders, monkeypatch, capsys):
    pred, gt = folders
    (pred / "metrics.json").write_text("old")

    def full_disk(self: Path, *_args, **_kwargs) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    assert eval_metrics.main(["--pred", str(pred), "--gt", str(gt)]) == UsageError.exit_code
    assert "No space left" in capsys.readouterr().err
    assert (pred / "metrics.json").read_text() == "old"


def test_the_table_is_written_as_csv(folders, tmp_path):
    write_video(folders[0] / "extra.mkv", make_clip())
    code, report = run(*folders, "--csv", str(tmp_path / "table.csv"))
    lines = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    assert code == 7
    assert lines[0] == ["clip", "psnr", "ssim"]
    assert [line[0] for line in lines[1:]] == ["ant", "bee", "extra", "average", "scored"]
    assert lines[3][1:] == ["", ""]
    assert float(lines[4][1]) == report["average"]["psnr"]["mean"]
    assert lines[5] == ["scored", "2 of 3", "2 of 3"]
