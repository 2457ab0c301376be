"""The benchmark of restoring: both sides run, its numbers belong together, its picture can be looked at."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import plan_table, restore, shares, small_model, vae
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
    assert 0.5 < result["teraflop"]["ours"] / result["teraflop"]["reference"] <= 1
    assert cv2.imread(str(tmp_path / "stages.png")).shape[1] > 900
    assert "transformer" in capsys.readouterr().out


def test_each_stage_has_a_share_of_the_rate_of_matrix_products(capsys):
    shares.main(["--frames", "9", "--size", "32x32", "--runs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["encode", "denoise", "decode"]
    assert all(float(line.rpartition(" ")[2]) > 0 for line in lines[1:])


def test_the_vae_is_compared_and_where_its_time_goes(capsys):
    vae.main(["--frames", "9", "--height", "32", "--width", "32", "--runs", "1", "--strip_rows", "8", "--profile"])
    for line in capsys.readouterr().out.splitlines():
        result = json.loads(line)
        assert all(difference <= 1e-4 for difference in result["differences"].values())
        assert set(result["times_as_fast_as"]) == {"untiled", "tiled", "strips"}
        for shares_of_operations in result["profile"].values():
            assert any("conv" in name for name in shares_of_operations)
            assert 0.5 < sum(shares_of_operations.values()) <= 1.01


def test_one_of_diffusers_ways_is_left_out(capsys):
    shape = ["--frames", "9", "--height", "32", "--width", "32"]
    vae.main([*shape, "--runs", "0", "--direction", "decode", "--against", "tiled"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["peak_bytes"]) == {"ours", "tiled"}
    assert set(result["times_as_fast_as"]) == set(result["memory_of_theirs"]) == {"tiled"}
    assert result["differences"] == {}  # ours is compared with untiled only


def test_the_table_in_the_readme_is_what_its_command_prints():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (row,) = [line for line in readme.splitlines() if line.startswith("| 80 GB |")]
    assert row.split(" | ")[1] == plan_table.cell(80, plan_table.SIZES["480p"])


def test_uneven_grain_is_the_noise_that_one_frame_has_and_the_others_lack():
    noise = np.random.default_rng(0).normal(0, 1, (9, 64, 256, 3))
    noise[4] *= 2
    clip = np.round(128 + 5 * noise).astype(np.uint8)
    clip[:, :, 32] = 255  # an edge
    passed = 0.945  # of white noise: sqrt(1 - 2 / (2 pi sigma^2) + 1 / (4 pi sigma^2)), sigma 1.5
    assert small_model.uneven_grain(clip) == pytest.approx(passed * np.sqrt(10**2 - 5**2), rel=0.05)
    assert small_model.uneven_grain(clip[4:5]) == 0
