"""The bundled small model: complete, small, free of paths, and as good as its card says."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.scripts import make_held_out
from finetune.scripts.tiny_model import MAX_PIXELS, untrained_pipeline
from vsr import load_pipeline

MODEL = Path(__file__).parents[1] / "pretrained_models" / "tiny"
CARD = (MODEL / "README.md").read_text()
CLIP = "chelsea_1"


def test_it_is_small_and_complete_and_names_no_path():
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".png"}
    for path in MODEL.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text())
        assert not re.search(r'"/|\.\./', path.read_text())


def test_it_is_what_the_script_builds():
    shipped, built = load_pipeline(MODEL, "float32", "cpu"), untrained_pipeline()
    assert shipped.grid.max_pixels == MAX_PIXELS
    for name in ("vae", "transformer"):
        ours, theirs = (getattr(pipe, name).state_dict() for pipe in (shipped, built))
        assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_a_score_of_the_card():
    shot = next(shot for shot in make_held_out.shots() if shot.name == CLIP)
    x_gt = shot.frames(make_held_out.SIZE, make_held_out.FRAMES)
    x_lq = make_held_out.degrade(x_gt, shot.generator())
    restored = load_pipeline(MODEL, "float32", "cpu")(x_lq).frames
    bicubic = np.stack([cv2.resize(x, make_held_out.SIZE, interpolation=cv2.INTER_CUBIC) for x in x_lq])
    stated = re.search(rf"\| {CLIP} \| ([\d.]+) \| ([\d.]+) \|", CARD).groups()
    for frames, value in zip((bicubic, restored), stated, strict=True):
        mse = np.square(frames.astype(np.float64) - x_gt).mean(axis=(1, 2, 3))
        assert np.mean(10 * np.log10(255**2 / mse)) == pytest.approx(float(value), abs=0.1)
