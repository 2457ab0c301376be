"""What the README says can be typed: its commands parse, its example runs, its map names what is there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import eval_metrics
import inference_script
from finetune import train
from finetune.curation.config import CurationConfig
from finetune.recipe import load_recipe
from finetune.scripts import curate, prepare_dataset, prepare_sft_ckpt
from finetune.typed_yaml import read_yaml
from tests.tiny import random_pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PARSERS = {
    "inference_script.py": inference_script.parse_args,
    "eval_metrics.py": eval_metrics.parse_args,
    "finetune/scripts/prepare_dataset.py": prepare_dataset.parse_args,
    "finetune/scripts/prepare_sft_ckpt.py": prepare_sft_ckpt.parse_args,
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program):
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(python finetune/[^`]*)`", README)
    return [line for line in [*lines, *inline] if line.startswith(program)]


@pytest.mark.parametrize("command", [c for c in commands("python ") if c.split()[1] in PARSERS])
def test_every_command_parses(command):
    _, script, *flags = shlex.split(command, comments=True)
    PARSERS[script](flags)


@pytest.mark.parametrize("command", commands("bash finetune/"))
def test_every_training_command_names_a_recipe_that_loads(command):
    _, script, *arguments = shlex.split(command)
    recipe = arguments.pop(0) if arguments and arguments[0].endswith(".yaml") else f"configs/dove_{script[-5:-3]}.yaml"
    assert recipe in (ROOT / script).read_text() or (ROOT / recipe).is_file()
    args = train.parse_args([recipe, *arguments])
    load_recipe(ROOT / args.recipe, args.overrides)


@pytest.mark.parametrize("command", [*commands("python -m finetune"), *commands("RAY_ADDRESS=auto python -m finetune")])
def test_every_command_that_curates_names_a_configuration_that_loads(command):
    _, flags = command.split("finetune.scripts.curate")
    args = curate.parse_args(shlex.split(flags, comments=True))
    read_yaml(ROOT / args.config, CurationConfig, args.overrides)


def test_every_flag_in_the_section_on_use_exists():
    section = README.split("## Use")[1].split("## Train")[0]
    source = Path(inference_script.__file__).read_text() + Path(eval_metrics.__file__).read_text()
    known = set(re.findall(r"--[a-z_]+", section)) - {"--help", "--nproc_per_node"}
    assert {flag for flag in known if f'"{flag}"' not in source} == set()


def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = blocks("python")
    random_pipeline(levels=3).save_pretrained(tmp_path / "pretrained_models" / "DOVE")
    shutil.copytree(ROOT / "datasets" / "demo", tmp_path / "datasets" / "demo")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert (tmp_path / "results" / "chelsea.mp4").is_file()


def test_the_map_names_what_is_there():
    (tree,) = re.findall(r"## Map\n\n```\n(.*?)```", README, flags=re.DOTALL)
    for name in re.findall(r"^ *([\w/]+(?:\.py|\.sh|/))", tree, flags=re.MULTILINE):
        assert any((ROOT / folder / name).exists() for folder in ("", "vsr", "finetune")), name
