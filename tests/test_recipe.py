"""Recipes: strict, typed, overridable; every one in configs/ loads."""

from pathlib import Path

import pytest
import yaml

from finetune import train
from finetune.recipe import dump_recipe, load_recipe
from vsr.errors import UsageError

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.name != "published.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_loads_and_says_paper_or_purpose_and_command(path):
    load_recipe(path, [])
    assert "# Run: " in path.read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_resolved_recipe_loads_to_the_same(path, tmp_path):
    recipe = load_recipe(path, ["train.lora.rank=4"])
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(dump_recipe(recipe))
    assert load_recipe(resolved, []) == recipe


def test_the_published_numbers_of_dove():
    one, two = (load_recipe(ROOT / "configs" / f"dove_{stage}.yaml", []) for stage in ("s1", "s2"))
    assert (one.train.steps, one.train.lr, one.train.batch_size) == (10_000, 2e-5, 2)
    assert (one.data.frames, one.data.height, one.data.width) == (25, 320, 640)
    assert (two.train.steps, two.train.lr, two.data.image_ratio, two.train.max_grad_norm) == (500, 5e-6, 0.8, 0.1)
    assert (two.loss.perceptual, two.loss.perceptual_weight, two.loss.frame_weight) == ("dists", 1.0, 1.0)


def test_the_names_that_others_rely_on_can_be_overridden(tmp_path):
    names = ["data.videos=a", "data.images=b", "init_from=c", "output_dir=d", "train.steps=5", "train.lr=1.0e-6"]
    recipe = load_recipe(ROOT / "configs" / "dove_s2.yaml", [*names, "train.lora.rank=8"])
    assert (recipe.data.videos, recipe.data.images) == (Path("a"), Path("b"))
    assert (recipe.init_from, recipe.output_dir) == (Path("c"), Path("d"))
    assert (recipe.train.steps, recipe.train.lr, recipe.train.lora.rank) == (5, 1e-6, 8)


@pytest.mark.parametrize(
    ("recipe", "override", "words"),
    [
        ("dove_s1", "train.stepz=3", "train: unknown field 'stepz'; did you mean 'steps'?"),
        ("dove_s1", "train.steps=many", "train: steps: expected int, got 'many'"),
        ("dove_s1", "train.lr=1e-5", "write 1.0e-5"),
        ("dove_s1", "data.frames=24", "write 17 or 25"),
        ("dove_s1", "data.image_ratio=0.5", "images is not set"),
        ("dove_s1", "method=dove", "expected one of dove_latent, dove_pixel"),
        ("dove_s1", "loss.perceptual=none", "dove_latent has no such settings"),
        ("dove_s2", "latent.loss=psnr", "dove_pixel has no such settings"),
        ("dove_s1", "latent.loss=l1", "latent: loss: expected one of mse, psnr"),
        ("dove_s1", "train.ema_decay=2.0", "between 0 and 1"),
        ("dove_s2", "loss=null", "missing loss"),
        ("tiny/vae", "validation={lq: a, gt: b}", "vae trains no transformer"),
        ("dove_s1", "validation={lq: a, gt: b, every: 0}", "at least 1"),
        ("dove_s1", "pipeline.timestep=-5", "0 or more"),
        ("dove_s1", "train.lora={rank: 0}", "rank: expected at least 1"),
        ("dove_s1", "train.betas=[0.9,1.5]", "below 1"),
        ("dove_s1", "train.lr=.nan", "above 0"),
        ("dove_s1", "train.seed=4294967296", "below 2"),
        ("dove_s1", "latent={frame_weight: .nan}", "frame_weight: expected 0 or a number above"),
        ("dove_s2", "loss.perceptual_weight=-1.0", "perceptual_weight: expected 0 or a number above"),
        ("tiny/vae", "vae.kl_weight=.inf", "kl_weight: expected 0 or a number above"),
        ("dove_s1", "train.weight_decay=-1.0", "0 or a number above"),
        ("dove_s2", "data.images=null", "images is not set"),
        ("dove_s2", "loss.temporal_decode=true", "8k\\+1"),
        ("dove_s2", "data.height=100", "multiple of 16"),
        ("dove_s2", "train.lr", "section.field=value"),
    ],
)
def test_a_mistake_is_refused_with_file_field_and_what_to_write(recipe, override, words):
    path = ROOT / "configs" / f"{recipe}.yaml"
    with pytest.raises(UsageError, match=words.replace("?", r"\?")) as raised:
        load_recipe(path, [override])
    assert str(path) in str(raised.value) or override in str(raised.value)


def test_a_missing_field_is_named(tmp_path):
    tree = yaml.safe_load((ROOT / "configs" / "toy_s1.yaml").read_text())
    del tree["train"]["lr"]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(UsageError, match="missing lr"):
        load_recipe(path, [])


def test_a_dry_run_prints_the_resolved_recipe(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert train.main(["configs/toy_s1.yaml", "train.steps=3", "output_dir=results/none", "--dry_run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["steps"] == 3


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["configs/none.yaml"], 2),
        (["configs/toy_s1.yaml", "init_from=nowhere"], 5),
        (["configs/toy_s1.yaml", "resume=checkpoint-3"], 2),
        (["configs/toy_s1.yaml", "data.videos=nowhere", "output_dir=results/none"], 3),
    ],
)
def test_exit_codes_before_training(flags, code, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert train.main(flags) == code


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2"])
def test_the_accelerate_configurations_are_ones_that_accelerate_reads(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type.value == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED"}[name]


def test_zero2_leaves_the_accumulation_to_the_recipe():
    """A launcher that names it would be believed instead."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    path = str(ROOT / "configs" / "accelerate" / "zero2.yaml")
    args = launch_command_parser().parse_args(["--config_file", path, "--num_processes", "2", "train.py"])
    args.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(_validate_launch_command(args)[0])
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" not in environment
