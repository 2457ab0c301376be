"""What is refused before any weights are loaded, and how a mistake that shows later is told."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from finetune import checks, train
from finetune.recipe import ValidationConfig, load_recipe
from finetune.validate import check_validation
from tests.media import clip
from tests.tiny import random_pipeline
from vsr.errors import InputError, VSRError

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "configs" / "toy_s1.yaml"


@pytest.fixture
def flags(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "videos").mkdir()
    clip(tmp_path / "videos" / "a.mp4", size="64x64", seconds="0.8")
    data = [f"data.videos={tmp_path / 'videos'}", "data.height=32", "data.width=32", "data.workers=1"]
    return [*data, f"output_dir={tmp_path / 'run'}", "train.steps=2"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.videos=tests/reference/models", "names no video"),
        ("data.height=128", "smaller than the crop"),
        ("data.frames=41", "fewer than the 41"),
        ("data.degradation=realbasic", "unknown degradation"),
        ("pipeline.timestep=1000", "less than 1000"),
        ("train.precision=fp16", "fp16 needs a GPU"),
        ("train.max_grad_norm=0.0", "max_grad_norm: expected a number above 0"),
        ("train.tracker=wandb", "wandb is not installed"),
        ("validation={lq: datasets/demo/LQ-Video, gt: datasets/demo/GT-Video, metrics: [psn]}", "psn"),
    ],
)
def test_a_mistake_is_told_before_the_model_is_loaded(change, words, flags):
    if "wandb" in change and importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(VSRError, match=words):
        checks.check(load_recipe(RECIPE, [*flags, change]))


@pytest.mark.parametrize(
    ("size", "seconds", "words"), [("60x64", "0.4", "the result will be 64x64"), ("64x64", "0.36", "has 9 frames")]
)
def test_validation_clips_that_do_not_fit_their_ground_truth_stop_training_before_it_begins(
    size, seconds, words, flags, tmp_path
):
    for folder in ("lq", "gt"):
        (tmp_path / folder).mkdir()
    clip(tmp_path / "lq" / "one.mp4", size="16x16", seconds="0.4")
    clip(tmp_path / "gt" / "one.mp4", size=size, seconds=seconds)
    validation = f"validation={{lq: {tmp_path / 'lq'}, gt: {tmp_path / 'gt'}}}"
    with pytest.raises(VSRError, match=words):
        checks.check(load_recipe(RECIPE, [*flags, validation]))


@pytest.mark.parametrize("setting", ["noise_step=5", "posterior=sample"])
def test_a_model_that_restores_with_noise_is_not_trained(setting, flags, tmp_path):
    pipe, (name, _, value) = random_pipeline(), setting.partition("=")
    pipe.register_to_config(**{name: int(value) if value.isdigit() else value})
    pipe.save_pretrained(tmp_path / "noisy")
    with pytest.raises(VSRError, match="without noise"):
        checks.check(load_recipe(RECIPE, [*flags, f"init_from={tmp_path / 'noisy'}"]))


def test_a_worker_that_fails_is_told_in_one_line(flags, tmp_path, caplog):
    clip(tmp_path / "videos" / "b.mp4", size="16x16", seconds="0.8")
    code = train.main([str(RECIPE), *flags])
    assert code == 3
    message = next(record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert message.startswith(f"error: {tmp_path / 'videos' / 'b.mp4'}: is 16x16, smaller than the crop")


def test_own_words_of_an_error_are_kept_as_they_are():
    assert train.own_words(InputError("a: b")) == "a: b"


def test_ctrl_c_ends_with_130(flags, monkeypatch, caplog):
    def interrupted(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert train.main([str(RECIPE), *flags]) == 130
    assert "resume=latest" in caplog.text


def test_running_out_of_memory_ends_with_4_and_names_settings(flags, monkeypatch, caplog):
    def too_large(recipe):
        raise MemoryError

    monkeypatch.setattr(train, "run", too_large)
    assert train.main([str(RECIPE), *flags]) == 4
    assert "train.batch_size" in caplog.text


def test_options_may_stand_between_overrides(flags, capsys):
    assert train.main([str(RECIPE), "--dry_run", *flags]) == 0
    assert "steps: 2" in capsys.readouterr().out


def launch(*arguments, cwd, **environment):
    command = ["bash", str(ROOT / "finetune" / "train_ddp_one_s1.sh"), *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", **environment}
    )


def test_the_script_takes_a_recipe_beside_the_caller_and_tells_a_mistake_once(tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE.read_text())
    done = launch("mine.yaml", "train.stepz=3", cwd=tmp_path, NPROC="2")
    assert done.returncode == 2
    assert done.stderr.count("unknown field 'stepz'") == 1


def test_a_sharding_that_cannot_be_used_is_refused_by_the_script(tmp_path):
    for name in ("configs/accelerate/zero2.yaml", "/no/such.yaml"):  # the first needs a GPU
        done = launch("configs/toy_s1.yaml", cwd=tmp_path, NPROC="1", ACCELERATE_CONFIG=name, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 2
        assert f"ACCELERATE_CONFIG={name}: expected" in done.stderr


def test_two_processes_by_the_script_write_one_run(flags, tmp_path):
    done = launch("configs/toy_s1.yaml", *flags, cwd=tmp_path, NPROC="2", MASTER_PORT="29613")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "log.jsonl").read_text().count("\n") == 1
    assert "2/2" in done.stderr


@pytest.mark.parametrize("folder", ["lq", "gt"])
def test_validation_clips_whose_results_would_have_one_name_are_refused(tmp_path, folder):
    for side, size in (("lq", "16x16"), ("gt", "64x64")):
        (tmp_path / side).mkdir()
        clip(tmp_path / side / "one.mp4", size=size, seconds="0.2")
    shutil.copy(tmp_path / folder / "one.mp4", tmp_path / folder / "one.mov")
    with pytest.raises(InputError, match=f"{folder}/one.* and .*{folder}/one.* have one name"):
        check_validation(ValidationConfig(lq=tmp_path / "lq", gt=tmp_path / "gt"), 4)
