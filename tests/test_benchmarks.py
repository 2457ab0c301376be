"""The benchmark of restoring: both sides run, its numbers belong together, its picture can be looked at."""

import json

import cv2
import pytest

from benchmarks import restore
from benchmarks.stopwatch import STAGES


def test_both_sides_are_measured_stage_by_stage(tmp_path, capsys):
    flags = ["--frames", "9", "--size", "64x64", "--runs", "1", "--output", str(tmp_path)]
    restore.main(flags)
    (result,) = json.loads((tmp_path / "results.json").read_text())["results"]
    for side in ("ours", "reference"):
        seconds = result["seconds"][side]
        assert set(seconds) == {*STAGES, "total"}
        assert all(seconds[stage] > 0 for stage in STAGES)
        assert sum(seconds[stage] for stage in STAGES) == pytest.approx(seconds["total"], rel=0.2, abs=0.2)
        assert result["peak_bytes"][side] > 64 * 64 * 9 * 3 * 4
    # one window without tiles: the networks do the same work, ours less of it in the VAE
    assert 0 < result["teraflop"]["ours"] <= result["teraflop"]["reference"]
    assert cv2.imread(str(tmp_path / "stages.png")).shape[1] > 900
    assert "transformer" in capsys.readouterr().out
