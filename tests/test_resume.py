"""Going on from a checkpoint: what may change, what may not, and what is left of the steps after it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from finetune import checkpoint, train
from finetune.recipe import load_recipe
from finetune.scripts import prepare_sft_ckpt
from tests.media import clip
from tests.tiny import random_pipeline
from vsr import load_pipeline

ROOT = Path(__file__).parent.parent
RECIPE = str(ROOT / "configs" / "toy_s1.yaml")


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate keeps the precision of a process for good."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "videos").mkdir()
    clip(tmp_path / "videos" / "one.mp4", size="64x64", seconds="0.8")
    random_pipeline().save_pretrained(tmp_path / "base")
    data = [f"data.videos={tmp_path / 'videos'}", "data.height=32", "data.width=32", "data.workers=0"]
    small = ["train.steps=3", "train.log_every=1", "train.checkpoint_every=1", "train.warmup_steps=0"]
    return [RECIPE, *data, *small, f"init_from={tmp_path / 'base'}", f"output_dir={tmp_path / 'run'}"]


@pytest.fixture
def run(flags, tmp_path):
    """A finished run of three steps with a checkpoint after each."""
    assert train.main(flags) == 0
    return tmp_path / "run"


def entries(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_step_is_logged_once_even_if_it_was_done_twice(flags, run):
    before = entries(run)
    shutil.rmtree(run / "checkpoint-3")
    shutil.rmtree(run / "checkpoint-2")
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "latent/lo')  # the machine went down while it wrote
    assert train.main([*flags, "resume=latest"]) == 0
    assert entries(run) == before


def test_a_run_goes_on_with_another_number_of_micro_batches(flags, run, tmp_path):
    """Five samples in all; accelerate's own counter of micro-batches would then be out of step with the updates."""
    for old in checkpoint.list_checkpoints(run)[1:]:
        shutil.rmtree(old)
    assert train.main([*flags, "resume=latest", "train.accumulation=2"]) == 0
    losses = [entry["latent/loss"] for entry in entries(run)]
    norms = [entry["latent/grad_norm/student"] for entry in entries(run)]
    whole = tmp_path / "whole"
    assert train.main([*flags, f"output_dir={whole}", "train.batch_size=2", "train.steps=1"]) == 0
    from safetensors.torch import load_file

    one, two = (load_file(run / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    assert len(losses) == 3
    assert norms[2] < 2 * norms[1]  # gradients are not carried over from update to update
    assert any((one[name] != two[name]).any() for name in one)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.lr=0.5", "train.lr is 0.5"),
        ("train.lora.rank=4", "train.lora is"),
        ("train.ema_decay=0.9", "train.ema_decay is 0.9"),
    ],
)
def test_what_the_state_holds_may_not_change(change, words, flags, run, caplog):
    assert train.main([*flags, "resume=latest", "train.steps=4", change]) == 2
    assert words in caplog.text
    assert "lr: 0.001" in (run / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [("train.seed=7", "train.seed is 7"), ("pipeline.timestep=59", "pipeline is"), ("latent.loss=psnr", "latent is")],
)
def test_a_run_goes_on_with_the_same_task(change, words, flags, run, caplog):
    assert train.main([*flags, "resume=latest", "train.steps=4", change]) == 2
    assert words in caplog.text


def test_a_run_goes_on_with_the_model_it_began_with_wherever_that_lies(flags, run, tmp_path, caplog):
    again = [*flags, "resume=latest", "train.steps=4"]
    random_pipeline(seed=1).save_pretrained(tmp_path / "other")
    assert train.main([*again, f"init_from={tmp_path / 'other'}"]) == 2
    assert "another model" in caplog.text
    shutil.copytree(tmp_path / "base", tmp_path / "moved")
    assert train.main([*again, f"init_from={tmp_path / 'moved'}"]) == 0
    (tmp_path / "moved").rename(tmp_path / "base_2")
    assert train.main([*flags, "resume=latest", "train.steps=5", f"init_from={tmp_path / 'base_2'}"]) == 0
    assert "not there any more" in caplog.text


def test_what_changes_the_steps_that_follow_is_said(flags, run, caplog):
    more = ["train.steps=4", "train.max_grad_norm=0.5", "train.log_every=2"]
    assert train.main([*flags, "resume=latest", *more]) == 0
    assert "train.max_grad_norm is 0.5" in caplog.text
    assert "log_every" not in caplog.text
    assert ("train.steps is" in caplog.text) == (load_recipe(run / "recipe.yaml", []).train.schedule != "constant")


def test_other_data_are_said_and_samples_are_counted_on(flags, run, caplog):
    import torch

    assert train.main([*flags, "resume=latest", "train.steps=4", "train.batch_size=2", "data.degradation=area"]) == 0
    assert "data.degradation is area" in caplog.text
    samples = [torch.load(run / f"checkpoint-{n}" / "trainer_state.pt", weights_only=True)["samples"] for n in (3, 4)]
    assert samples == [3, 5]


def test_an_older_checkpoint_is_not_gone_on_from_beside_newer_ones(flags, run, tmp_path, caplog):
    older = [*flags, f"resume={run / 'checkpoint-1'}"]
    assert train.main(older) == 2
    assert "has checkpoint-3, which does not lead to" in caplog.text
    assert train.main([*older, f"output_dir={tmp_path / 'branch'}"]) == 0
    weights = "model/transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "branch" / weights).read_bytes() == (run / weights).read_bytes()


def test_what_a_killed_run_left_behind_is_removed(flags, run):
    (run / ".checkpoint-9.incomplete").mkdir()
    assert train.main([*flags, "resume=latest", "train.steps=4"]) == 0
    assert not list(run.glob(".checkpoint-*"))


def test_a_checkpoint_becomes_a_model_when_its_base_has_moved(run, tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(run)
    (tmp_path / "base").rename(tmp_path / "moved")
    assert prepare_sft_ckpt.main(["--checkpoint_dir=checkpoint-3", "--dtype=fp32"]) == 5
    assert "--weights_source" in caplog.text
    flag = f"--weights_source={tmp_path / 'moved'}"
    assert prepare_sft_ckpt.main(["--checkpoint_dir=checkpoint-3", "--dtype=fp32", flag]) == 0
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (run / "ckpt-3-sft" / weights).read_bytes() == (run / "model" / weights).read_bytes()
    assert prepare_sft_ckpt.main(["--checkpoint_dir=checkpoint-3", flag]) == 2  # it is there already


def test_a_conversion_does_not_round_what_did_not_learn(flags, tmp_path):
    assert train.main([*flags, "train.steps=1", "train.precision=bf16"]) == 0
    assert prepare_sft_ckpt.main([f"--checkpoint_dir={tmp_path / 'run' / 'checkpoint-1'}", "--dtype=fp32"]) == 0
    weights = "vae/diffusion_pytorch_model.safetensors"
    base, converted = (load_file(folder / weights) for folder in (tmp_path / "base", tmp_path / "run" / "ckpt-1-sft"))
    assert all(torch.equal(base[name], converted[name]) for name in base.keys() | converted.keys())


def test_an_export_finds_a_base_that_is_relative_to_the_repository(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert train.main([*flags, "init_from=tests/reference/models/cogvideox15", "train.steps=1"]) == 0
    monkeypatch.chdir(tmp_path)
    assert prepare_sft_ckpt.main(["--checkpoint_dir=run/checkpoint-1"]) == 0


@pytest.mark.parametrize("mode", ["bilinear", "area"])
def test_the_exported_model_restores_as_its_data_was_made(flags, tmp_path, mode):
    base = load_pipeline(tmp_path / "base", "float32", "cpu")
    base.register_to_config(upscale_mode="bicubic")
    base.save_pretrained(tmp_path / "bicubic")
    other = [f"init_from={tmp_path / 'bicubic'}", "data.scale=2", "train.steps=1"]
    assert train.main([*flags, *other, f"data.upscale_mode={mode}"]) == 0
    exported = load_pipeline(tmp_path / "run" / "model", "float32", "cpu")
    assert (exported.config.scale, exported.config.upscale_mode) == (2.0, mode)


@pytest.mark.parametrize("lora", [[], ["train.lora.rank=2"]], ids=["full", "LoRA"])
def test_bf16_keeps_learned_weights_in_float32_and_resumes_exactly(lora, flags, tmp_path):
    flags = [*flags, "train.precision=bf16", *lora, "train.ema_decay=0.5"]
    assert train.main(flags) == 0
    assert train.main([*flags, f"output_dir={tmp_path / 'other'}", f"resume={tmp_path / 'run' / 'checkpoint-2'}"]) == 0
    weights = "checkpoint-3/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "other" / weights).read_bytes()
