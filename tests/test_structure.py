"""The shape of the repository: what may import what, and what may lie where."""

import ast
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("vsr", "finetune") for path in (ROOT / folder).rglob("*.py"))

NOT_IN_VSR = {
    "accelerate",
    "peft",
    "pyiqa",
    "timm",
    "ray",
    "decord",
    "wandb",
    "tensorboard",
    "finetune",
    "tests",
    "skimage",
}
"""Packages that restoring must not need."""
ONLY_FOR_METRICS = {"pyiqa", "timm"}
"""vsr/metrics may import them, inside the function that needs them."""


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports."""
    return imports_of(ast.parse(path.read_text()), path)


def imports_of(tree: ast.AST, path: Path) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_at_load(path: Path) -> set[str]:
    """Those of them that importing the file itself imports: not inside a function."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return imports_of(tree, path)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows(path):
    packages = {name.split(".")[0] for name in imports(path)}
    if path.is_relative_to(ROOT / "vsr"):
        allowed = ONLY_FOR_METRICS if path.is_relative_to(ROOT / "vsr" / "metrics") else set()
        assert not packages & (NOT_IN_VSR - allowed)
        assert not {name.split(".")[0] for name in imports_at_load(path)} & NOT_IN_VSR
    if path.is_relative_to(ROOT / "finetune" / "losses"):
        assert not packages & {"vsr", "diffusers"}
    if path.name == "trainer.py":
        methods = {name for name in imports(path) if name.startswith("finetune.methods.")}
        assert all(name.startswith("finetune.methods.base.") for name in methods)
    if path == ROOT / "vsr" / "restore.py":
        assert not any(name.startswith("vsr.pipelines") for name in imports(path))


def test_datasets_is_data_not_code():
    assert not list((ROOT / "datasets").rglob("*.py"))  # one would shadow Hugging Face's `datasets`


def test_files_have_one_subject_and_functions_fit_a_screen():
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 70, f"{path}: {node.name}"


def test_exactly_one_opencv_is_installed():
    found = {d.name for d in distributions() if d.name.lower().replace("_", "-").startswith("opencv")}
    assert found == {"opencv-python-headless"}


RESTORE_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # None: importing it fails
import importlib, pkgutil, vsr
for module in pkgutil.walk_packages(vsr.__path__, "vsr."):
    importlib.import_module(module.name)
import inference_script
sys.exit(inference_script.main({flags!r}))
"""


def test_a_clip_is_restored_without_any_training_package(tmp_path):
    from tests.media import clip
    from tests.tiny import random_pipeline

    random_pipeline().save_pretrained(tmp_path / "model")
    clip(tmp_path / "clip.mp4", size="24x16")
    blocked = sorted(NOT_IN_VSR - {"finetune", "tests"})
    flags = [
        f"--input_dir={tmp_path / 'clip.mp4'}",
        f"--model_path={tmp_path / 'model'}",
        f"--output_path={tmp_path}/out",
    ]
    code = RESTORE_WITHOUT.format(blocked=blocked, flags=flags)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "clip.mp4").is_file()
