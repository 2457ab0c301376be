"""Predicted memory against counted, and which plan is chosen: what changes pixels comes last."""

from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch

from benchmarks.architectures import ARCHITECTURES
from tests.tiny import numbered_clip, random_pipeline
from vsr import RestoreSettings, restore_frames
from vsr.budget import MARGIN, Budget, budget_for, left_in_groups, parse_size
from vsr.costs import Architecture, denoise_cost, weights
from vsr.counting import PeakBytes
from vsr.errors import OutOfMemoryError, UsageError
from vsr.fitting import Fitting
from vsr.planner import Planner
from vsr.plans import Ladder, Plan
from vsr.settings import make_layout
from vsr.windows import Grid

LADDER = Ladder(frames=33, tile=(128, 256), least_tile=(64, 64), multiple=16, step=8, spills=True)


def architecture_of(pipe, device="cpu"):
    configs = {"vae": pipe.vae.config, "transformer": pipe.transformer.config}
    return Architecture.of(configs, pipe.vae.dtype, device)


def planner_for(pipe, device="cpu", budget=None, **settings):
    return Planner(
        architecture=architecture_of(pipe, device),
        budget=budget or Budget(),
        grid=pipe.grid,
        settings=RestoreSettings(scale=1, scene_cut="off", **settings),
        scale=4,
    )


def real(device="cuda", limit=None, **settings):
    """A planner for the real model in bfloat16."""
    configs = dict(zip(("vae", "transformer"), ARCHITECTURES["cogvideox1.5-5b"], strict=True))
    return Planner(
        architecture=Architecture.of(configs, torch.bfloat16, device),
        budget=Budget(device=limit),
        grid=Grid(multiple=16, step=8),
        settings=RestoreSettings(scale=1, **settings),
        scale=4,
    )


F32, BF16 = torch.float32, torch.bfloat16
CASES = {
    "one window": ((64, 96), 9, BF16, {}, Plan()),
    "33 frames": ((48, 64), 33, F32, {}, Plan()),
    "longer than what is counted": ((32, 32), 65, F32, {"window": 0}, Plan()),
    "several windows": ((48, 48), 33, F32, {"window": 17}, Plan()),
    "strips": ((96, 64), 17, F32, {}, Plan(strip_rows=12)),
    "strips in bfloat16": ((64, 96), 17, BF16, {}, Plan(strip_rows=8)),
    "tiles asked for": ((96, 128), 9, F32, {"tile": (64, 80), "tile_overlap": (16, 16)}, Plan()),
    "tiles and strips": ((96, 128), 9, F32, {"tile_overlap": (16, 16)}, Plan(strip_rows=8, tile=(64, 80))),
    "windows cut again": ((48, 64), 33, F32, {}, Plan(strip_rows=6, window=9)),
}


@pytest.mark.parametrize("case", CASES)
def test_predicted_memory_is_within_a_fifth_of_what_is_counted(case):
    (height, width), frames, dtype, settings, plan = CASES[case]
    pipe = random_pipeline(levels=3).to(dtype)
    planner = planner_for(pipe, **settings)
    fitting = Fitting(pipe)
    fitting.start(make_layout(planner.settings, pipe.grid, height, width, 4), plan)
    restored = partial(fitting.restore_window, planner.settings, None)
    clip = numbered_clip(frames, height, width)
    with PeakBytes([*pipe.vae.parameters(), *pipe.transformer.parameters(), pipe.prompt_embedding]) as counter:
        assert sum(1 for _ in restore_frames(pipe, clip, planner.settings, restored=restored)) == frames
    known = weights(planner.architecture)
    predicted = planner.forecast(plan, height, width, frames).device - known.vae - known.transformer
    assert predicted == pytest.approx(counter.peak, rel=0.2)


def test_the_order_of_plans_changes_pixels_last():
    plans = list(LADDER)
    kinds = [plan.kind for plan in plans]
    assert kinds == sorted(kinds, key=["exact", "host-spilled", "tiled"].index)
    assert plans[:4] == [
        Plan(),
        Plan(strip_rows=16),
        Plan(strip_rows=16, offload=True),
        Plan(strip_rows=16, offload=True, host_caches=True),
    ]
    assert [(plan.window, plan.tile) for plan in plans[4:9]] == [
        (17, None),
        (9, None),
        (None, (128, 128)),
        (17, (128, 128)),
        (9, (128, 128)),
    ]
    assert plans[-1].tile == (64, 64)
    assert plans == sorted(set(plans), key=lambda plan: plan.position)
    assert all(plan.strip_rows < (plan.tile or (128, 256))[0] for plan in plans[1:])


def test_on_a_cpu_nothing_is_spilled_and_without_strips_only_windows_and_tiles_are_left():
    assert not any(plan.host_caches or plan.offload for plan in replace(LADDER, spills=False))
    bare = list(replace(LADDER, spills=False, has_strips=False))
    assert [plan.kind for plan in bare] == ["exact"] + ["tiled"] * (len(bare) - 1)
    assert all(plan.offload for plan in replace(LADDER, offload=True))
    without_strips = list(replace(LADDER, has_strips=False))
    assert without_strips[:2] == [Plan(), Plan(offload=True)] and not any(plan.host_caches for plan in without_strips)


def test_the_first_plan_that_fits_is_chosen_and_each_costs_less_than_the_one_before():
    size = (64, 96, 9)
    planner = planner_for(random_pipeline(levels=3), device="cuda", tile_overlap=(16, 16))
    needs = [planner.forecast(plan, *size).device for plan in islice(planner._ladder(*size), 4)]
    assert needs == sorted(needs, reverse=True)
    for index in (0, 1, 3):
        chosen = replace(planner, budget=Budget(device=needs[index])).choose(*size)
        assert chosen.device == needs[index]
    assert chosen.plan.kind == "host-spilled"
    smaller = replace(planner, budget=Budget(device=needs[3] - 1)).choose(*size)
    assert smaller.plan.kind == "tiled"
    assert chosen.host > planner.forecast(Plan(), *size).host + weights(planner.architecture).pinned


def test_what_cannot_fit_says_what_it_needs_and_what_there_is():
    budget = Budget(device=1000, host=1000)
    words = {"cpu": r"need [\d.]+ GB, and", "cuda": r"need [\d.]+ GB on the device and [\d.]+ GB beside"}
    for device, needs in words.items():
        planner = planner_for(random_pipeline(), device, budget)
        with pytest.raises(OutOfMemoryError, match=f"128x96 do not fit.*{needs}.*--upscale"):
            planner.choose(96, 128, 9)


def test_operations_grow_with_layers_frames_and_windows():
    pipe = random_pipeline()
    planner, architecture = planner_for(pipe), architecture_of(pipe)
    one, two = (planner.forecast(Plan(), 64, 64, frames).flops for frames in (33, 57))
    assert {stage: two[stage] / one[stage] for stage in one} == pytest.approx(dict.fromkeys(one, 2))
    config = dict(pipe.transformer.config)
    deeper = Architecture.of(
        {"vae": pipe.vae.config, "transformer": {**config, "num_layers": 20}}, torch.float32, "cpu"
    )
    shallow, deep = (denoise_cost(a, 9, 64, 64).flops for a in (architecture, deeper))
    assert 5 < deep / shallow < 10


def test_the_real_model_by_its_published_arithmetic():
    """33 frames of 720x1280: weights of 11.1 GB, 345 TFLOP in the transformer and at most 836 in diffusers' VAE."""
    planner = real()
    known = weights(planner.architecture)
    assert known.transformer == pytest.approx(11.1e9, rel=0.02)
    forecast = planner.forecast(Plan(), 720, 1280, 33)
    assert forecast.flops["denoise"] == pytest.approx(345e12, rel=0.02)
    assert 700e12 < forecast.flops["encode"] + forecast.flops["decode"] < 836e12


@pytest.mark.parametrize(
    ("text", "size"), [("16GB", 16e9), ("15.5 GiB", 15.5 * 2**30), ("800mb", 800e6), ("1MiB", 2**20)]
)
def test_amounts_of_memory(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["16", "GB", "-1GB", "0GB", "16 TB", "1e3GB", ""])
def test_other_words_are_no_amount(text):
    with pytest.raises(UsageError, match="16GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", ".", ("memory.max", "memory.current", "")),
        ("4:memory:/job/step", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")),
    ],
)
def test_limits_of_containers_and_batch_systems_count(tmp_path, monkeypatch, line, folder, names):
    def group(path, limit):
        path.mkdir(parents=True, exist_ok=True)
        most, used, which = names
        (path / most).write_text(limit)
        (path / used).write_text("3000")
        (path / "memory.stat").write_text(f"anon 1\n{which}inactive_file 700\n{which}active_file 300\n")

    (tmp_path / "cgroup").write_text(f"9:name=systemd:/\n{line}\n")
    assert list(left_in_groups(tmp_path / "cgroup", tmp_path)) == []  # nothing is to be seen
    group(tmp_path / folder / "job" / "step", "max")
    group(tmp_path / folder / "job", "10000")
    group(tmp_path / folder, "1500")
    assert list(left_in_groups(tmp_path / "cgroup", tmp_path)) == [8000, 0]
    assert list(left_in_groups(tmp_path / "none", tmp_path)) == []
    monkeypatch.setattr("vsr.budget.left_in_groups", lambda: [8000])
    assert budget_for(torch.device("cpu")) == Budget(device=7200, host=7200)


def test_a_limit_bounds_what_is_free():
    free, limited = budget_for(torch.device("cpu")), budget_for(torch.device("cpu"), 10**6)
    assert limited.device == int(MARGIN * 10**6)
    assert free.device is None or free.device > limited.device
    assert not limited.holds(10**6, 0)
    assert Budget().holds(10**15, 10**15)
