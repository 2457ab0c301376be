"""What the README says can be typed: its commands parse, its example runs, its map names what is there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import eval_metrics
import inference_script
from tests.tiny import random_pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PARSERS = {"inference_script.py": inference_script.parse_args, "eval_metrics.py": eval_metrics.parse_args}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python ") and line.split()[1] in PARSERS]


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command):
    _, script, *flags = shlex.split(command, comments=True)
    PARSERS[script](flags)


def test_every_flag_in_the_tables_exists():
    known = set(re.findall(r"--[a-z_]+", README.split("## Models")[0]))
    source = Path(inference_script.__file__).read_text() + Path(eval_metrics.__file__).read_text()
    elsewhere = {"--no"}  # pip install --no-deps
    assert {flag for flag in known if f'"{flag}"' not in source} <= elsewhere | {"--help"}


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
        assert (ROOT / name).exists() or (ROOT / "vsr" / name).exists(), name
