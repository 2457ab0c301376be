"""Build the small model that ships with this repository, from nothing: clips, VAE, stage 1, stage 2, mean, export.

    python -m finetune.scripts.build_tiny [--output pretrained_models/tiny]

A VAE that lies in OUTPUT already is taken as it is. Each step trains by a recipe of configs/tiny/ with the ordinary
trainer, into checkpoint/tiny/. The same command goes on after an interruption, from the last checkpoint. A GPU is used
when there is one; two CPU cores need about sixteen hours, by the times in the card.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from finetune import train
from finetune.data.dataset import PairDataset
from finetune.recipe import load_recipe
from finetune.scripts import cache_latents
from finetune.scripts.make_clips import make_clips
from finetune.scripts.tiny_model import untrained_pipeline
from finetune.scripts.tiny_vae import follow_pixels, see_one_frame
from vsr import codec, load_pipeline
from vsr.memory import keep_freed_memory
from vsr.pipelines.dove import DOVEPipeline

RECIPES, WORK = Path("configs/tiny"), Path("checkpoint/tiny")
CLIPS, DEGRADATIONS = 3000, 2
"""Training clips, and samples of each in the latent cache."""
ROUNDS = (5400, 3400, 3200, 4700, 4500, 3500, 12000, 5000, 6000, 6000, 10500, 9500)
"""Steps of stage 1 after its first run: each round begins with the last one's model, the learning rate rises again."""
SHARE = 0.75
"""Of the last round and stage 2 in the weights; the rest is the model before them."""
MEASURED = 64
"""Samples that the metric and the scale of latents are measured on."""


def main(argv: list[str] | None = None) -> int:
    """Run all steps that are not done yet; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("pretrained_models/tiny"), help="folder for the model")
    output = parser.parse_args(argv).output
    make_clips(WORK / "clips", CLIPS)
    if not (WORK / "untrained").exists():
        save(untrained_pipeline(), WORK / "untrained")
    steps = (
        lambda: compressed(output / "vae", WORK / "compressed"),
        lambda: cache_latents.main([str(RECIPES / "s1.yaml"), f"--degradations={DEGRADATIONS}"]),
        lambda: trained("s1"),
        more_rounds,
        lambda: trained("s2"),
        lambda: averaged(WORK / f"s1_{len(ROUNDS)}" / train.EXPORT, WORK / "s2" / train.EXPORT, WORK / "mean"),
    )
    for step in steps:
        if code := step():
            return code
    write_half(WORK / "mean", output)
    return 0


def compressed(vae: Path, target: Path) -> int:
    """Write the untrained model with a trained VAE: the one in ``vae`` where there is one, else trained now."""
    if target.exists():
        return 0
    if vae.exists():
        pipe = untrained_pipeline()
        pipe.register_modules(vae=AutoencoderKLCogVideoX.from_pretrained(vae, dtype=torch.float32))
        save(pipe, target)
        return 0
    steps = (
        lambda: trained("vae"),
        lambda: changed(WORK / "vae/model", WORK / "one_frame", see_one_frame),
        lambda: trained("vae_long"),
        lambda: changed(WORK / "vae_long/model", target, lambda vae: follow_pixels(vae, first_latents(vae))),
    )
    return next((code for step in steps if (code := step())), 0)


def more_rounds() -> int:
    """Train s1_2, s1_3, ... by configs/tiny/s1_more.yaml, unless they are there; the exit code."""
    source = "s1"
    for number, steps in enumerate(ROUNDS, 2):
        name = f"s1_{number}"
        places = f"init_from={WORK / source / train.EXPORT}", f"output_dir={WORK / name}"
        if code := trained(name, "s1_more", *places, f"train.steps={steps}", f"data.latent_seed={number}"):
            return code
        source = name
    return 0


def trained(name: str, recipe: str = "", *overrides: str) -> int:
    """Train by a recipe, its own if none is named, in another process, unless the model is there; the exit code."""
    if (WORK / name / train.EXPORT).exists():
        return 0
    command = [sys.executable, "-m", "finetune.train", str(RECIPES / f"{recipe or name}.yaml"), *overrides]
    return subprocess.run(command, check=False).returncode


def changed(source: Path, target: Path, change: Callable[[AutoencoderKLCogVideoX], None]) -> int:
    """Write a model again with its VAE changed, unless that is there; returns 0."""
    if not target.exists():
        pipe = load_pipeline(source, torch.float32, "cpu")
        change(pipe.vae)
        save(pipe, target)
    return 0


@torch.no_grad()
def averaged(before: Path, after: Path, target: Path) -> int:
    """Write ``after`` with the weighted mean of both transformers, unless that is there; returns 0."""
    if not target.exists():
        old, pipe = (load_pipeline(folder, torch.float32, "cpu") for folder in (before, after))
        for weight, start in zip(pipe.transformer.parameters(), old.transformer.parameters(), strict=True):
            weight.lerp_(start, 1 - SHARE)
        save(pipe, target)
    return 0


def save(pipe: DOVEPipeline, target: Path) -> None:
    """Write a model, complete or not at all: what is there counts as done."""
    temporary = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    pipe.save_pretrained(temporary)
    temporary.rename(target)


@torch.no_grad()
def first_latents(vae: AutoencoderKLCogVideoX) -> Tensor:
    """Of the first training samples of the VAE."""
    recipe = load_recipe(RECIPES / "vae.yaml", [])
    data = PairDataset(recipe.data, recipe.train.seed)
    return torch.cat([codec.encode(vae, data["video", n]["x_gt"][None]) for n in range(MEASURED)])


def write_half(source: Path, target: Path) -> None:
    """Write the model in half precision, without the paths that diffusers notes in configurations."""
    load_pipeline(source, torch.float16, "cpu").save_pretrained(target)
    for path in target.rglob("*.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
