"""Our scores beside published ones, and inference.sh: each set against its own ground truth, with its own metrics."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vsr.metrics import METRICS, table

ROOT = Path(table.__file__).parents[2]


def write_report(folder: Path, lower_better=("lpips",), scored: int = 10, **means: float | None) -> None:
    folder.mkdir(parents=True)
    average = {name: {"mean": mean, "scored": scored, "expected": 10} for name, mean in means.items()}
    (folder / "metrics.json").write_text(json.dumps({"average": average, "lower_better": list(lower_better)}))


def test_ours_beside_theirs_with_the_difference(tmp_path, capsys):
    write_report(tmp_path / "DOVE" / "UDM10", psnr=26.40, lpips=0.2600, niqe=4.0, dover_overall=0.5664, ssim=None)
    write_report(tmp_path / "DOVE" / "VideoLQ", scored=9, clipiqa=0.3484)
    assert table.main([str(tmp_path / "DOVE")]) == 0
    lines = {tuple(line.split()[:2]): line.split()[2:] for line in capsys.readouterr().out.splitlines()}
    assert lines["UDM10", "psnr"] == ["26.4000", "26.4800", "-0.0800", "-", "over", "10", "of", "10"]
    assert lines["UDM10", "lpips"] == ["0.2600", "0.2696", "-0.0096", "+", "over", "10", "of", "10"]
    assert lines["UDM10", "niqe"][:2] == ["4.0000", "-"]
    assert lines["UDM10", "ssim"][:2] == ["-", "0.7827"]
    assert lines["UDM10", "dover_overall"][:3] == ["0.5664", "0.7809", "-0.2145"]
    assert lines["UDM10", "ewarp"] == ["-", "1.7700"]
    assert lines["VideoLQ", "clipiqa"] == ["0.3484", "0.3484", "+0.0000", "=", "over", "9", "of", "10"]
    assert lines["YouHQ40", "psnr"] == ["-", "24.3000"]


def test_other_papers_and_methods(tmp_path, capsys):
    write_report(tmp_path / "mine" / "YouHQ40", niqe=4.43, lower_better=("niqe",))
    assert table.main([str(tmp_path / "mine"), "--paper=DUO-VSR", "--method=DOVE"]) == 0
    said = capsys.readouterr().out
    assert "DOVE in DUO-VSR" in said
    assert "4.4300     4.4300    +0.0000 =" in said
    assert "0.6936" in said


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "DOVE has numbers of RealESRGAN"),
        (["--paper=SRCNN"], 2, "paper must be one of DOVE, UltraVSR, DUO-VSR"),
        (["--method=DOVE"], 3, "no folder with metrics.json"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, flags, code, message, capsys):
    folder = tmp_path / "mine"
    if code == 2:
        write_report(folder / "UDM10", psnr=20)
    assert table.main([str(folder), *flags]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"average": 3}'])
def test_a_file_that_is_no_report_is_refused(tmp_path, text, capsys):
    write_report(tmp_path / "UDM10", psnr=20)
    (tmp_path / "UDM10" / "metrics.json").write_text(text)
    assert table.main([str(tmp_path), "--method=DOVE"]) == 3
    assert "metrics.json" in capsys.readouterr().err


def test_published_numbers_are_of_known_metrics():
    published = table.read_published()
    assert set(published) == {"DOVE", "UltraVSR", "DUO-VSR"}
    for paper in published.values():
        assert paper["source"]
        for sets in paper["methods"].values():
            for numbers in sets.values():
                assert set(numbers) <= set(METRICS)
                assert all(0 < value < 100 for value in numbers.values())
    dove = table.published_numbers(published, "DOVE", "DOVE")
    assert dove["UDM10"] == {
        "psnr": 26.48,
        "ssim": 0.7827,
        "lpips": 0.2696,
        "dists": 0.1492,
        "clipiqa": 0.5107,
        "fastervqa": 0.8064,
        "dover": 0.7809,
        "ewarp": 1.77,
    }
    assert set(dove) == {"UDM10", "SPMCS", "YouHQ40", "RealVSR", "MVSR4x", "VideoLQ"}


SCALES = {"UDM10": 4, "SPMCS": 4, "YouHQ40": 4, "RealVSR": 1, "MVSR4x": 1, "VideoLQ": 1}


def run_inference(folder: Path, *sets: str, **environment: str) -> tuple[int, list[str]]:
    """Run inference.sh with a Python that writes down what it is asked; returns the exit code and that."""
    shutil.copy(ROOT / "inference.sh", folder)
    for name in SCALES:
        (folder / "datasets" / "test" / name / "LQ-Video").mkdir(parents=True)
    python = folder / "python"
    python.write_text('#!/bin/bash\necho "$*" >> calls\n[[ "$*" != *--doctor* || -z "${NO_WEIGHTS:-}" ]]\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), **environment}
    done = subprocess.run(["bash", folder / "inference.sh", *sets], env=environment, capture_output=True, check=False)
    calls = folder / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def test_each_set_is_scored_against_its_own_ground_truth(tmp_path):
    code, calls = run_inference(tmp_path)
    assert code == 0
    scored = [call for call in calls if call.startswith("eval_metrics.py") and "--doctor" not in call]
    for name, scale in SCALES.items():
        (restored,) = [call for call in calls if f"/{name}/LQ-Video" in call]
        assert f"--upscale {scale} --save_format yuv444p --crf 0" in restored
        (call,) = [call for call in scored if call.split("--pred ")[1].split()[0].endswith(f"/{name}")]
        assert (f"--gt datasets/test/{name}/GT-Video" in call) == (name != "VideoLQ")
        metrics = call.split("--metrics ")[1].split()[0].split(",")
        assert any(METRICS[metric].needs_gt for metric in metrics) == (name != "VideoLQ")
        assert {"dover", "fastervqa", "ewarp", "clipiqa"} <= set(metrics)


def test_nothing_is_restored_when_the_scores_would_fail(tmp_path):
    code, calls = run_inference(tmp_path, NO_WEIGHTS="1")
    assert code == 5
    assert len(calls) == 1
    assert "--doctor" in calls[0]


def test_sets_can_be_named_and_an_unknown_one_is_an_error(tmp_path):
    code, calls = run_inference(tmp_path, "UDM10", "VideoLQ")
    assert code == 0
    assert [name for name in SCALES if any(f"/{name}/LQ-Video" in call for call in calls)] == ["UDM10", "VideoLQ"]
    (tmp_path / "other").mkdir()
    assert run_inference(tmp_path / "other", "UDM10", "udm10") == (2, [])


def test_restoring_without_scores(tmp_path):
    code, calls = run_inference(tmp_path, SCORED="psnr,ssim", NO_REFERENCE="", NO_WEIGHTS="")
    assert code == 0
    assert len([call for call in calls if "--pred" in call]) == 5
    assert len([call for call in calls if "inference_script" in call]) == 6
