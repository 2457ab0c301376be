"""What is refused before any weights are loaded, with the reason and what to do instead."""

import importlib.util
import logging
from dataclasses import asdict, fields
from fractions import Fraction
from operator import attrgetter
from pathlib import Path

import torch

from finetune.checkpoint import find_checkpoint
from finetune.data.dataset import PairDataset
from finetune.data.latents import LatentCache, cache_key
from finetune.engine import DTYPES
from finetune.recipe import SECTIONS, Recipe, load_recipe
from finetune.validate import check_validation
from vsr.errors import UsageError, VSRError
from vsr.metrics import METRICS, ScoreSettings
from vsr.metrics.catalog import complaints
from vsr.pipelines import find_model, inspect
from vsr.pipelines.settings import PipelineSettings
from vsr.report import fingerprint

log = logging.getLogger("finetune")

KEPT = ("lora", "ema_decay", "lr", "betas", "eps", "weight_decay", "warmup_steps", "schedule", "seed")
"""Fields of ``train`` that a checkpoint holds in its state: another value would change nothing, or would not fit."""
TASK = ("method", *(section for _, section, _ in SECTIONS), "pipeline")
"""Sections that say what is learned."""
NOTED = ("precision", "max_grad_norm", "batch_size", "accumulation")
"""Fields of ``train`` that may change, but not unnoticed."""


def check(recipe: Recipe) -> None:
    """Raise a VSRError when the recipe cannot be trained: the model, the packages, the data, the run to go on from."""
    check_model(recipe)
    _check_machine(recipe)
    start = find_checkpoint(recipe.output_dir, recipe.resume)
    if start:
        _check_same_run(recipe, start)
    if recipe.validation:
        check_validation(recipe.validation, recipe.data.scale)
    _check_data(recipe)


def check_model(recipe: Recipe) -> None:
    """The model is there and takes what the recipe gives it."""
    facts = inspect(find_model(str(recipe.init_from), weights=False))
    if recipe.method in ("dove_latent", "vae") or (recipe.loss and recipe.loss.temporal_decode):
        recipe.check_frames(facts.grid.step)
    for name in ("height", "width", "latent_crop"):
        if (getattr(recipe.data, name) or 0) % facts.grid.multiple:
            raise UsageError(f"data: {name}: this model takes multiples of {facts.grid.multiple} pixels")
    settings = PipelineSettings(**asdict(facts.settings) | pipeline_settings(recipe))
    if settings.timestep >= facts.num_timesteps:
        raise UsageError(f"pipeline: timestep: expected less than {facts.num_timesteps}, got {settings.timestep}")
    if settings.noise_step or settings.posterior != "mode":
        raise UsageError(
            f"{recipe.init_from}: has noise_step {settings.noise_step} and posterior {settings.posterior}; trained are "
            f"models that restore without noise: noise_step 0 and posterior mode in its model_index.json"
        )


def pipeline_settings(recipe: Recipe) -> dict[str, float | int | str]:
    """What the recipe says about settings that inference shares; the rest is inherited from ``init_from``."""
    told = {"coefficients": recipe.pipeline.coefficients, "timestep": recipe.pipeline.timestep}
    made = {"scale": float(recipe.data.scale), "upscale_mode": recipe.data.upscale_mode}
    return made | {name: value for name, value in told.items() if value is not None}


def perceptual_complaint(name: str) -> str | None:
    """What to do about a missing package, or weight files that are missing or damaged; None when all is there."""
    if found := complaints(METRICS[name], ScoreSettings()):
        return (
            f"the perceptual loss {name}: {'; '.join(found)}. pyiqa: pip install --no-deps -r requirements-pyiqa.txt; "
            f"files: python eval_metrics.py --download --metrics {name}; or train with loss.perceptual=none"
        )
    return None


def _check_machine(recipe: Recipe) -> None:
    """Packages, weight files and hardware that the recipe needs."""
    if recipe.loss and recipe.loss.perceptual != "none" and (message := perceptual_complaint(recipe.loss.perceptual)):
        raise UsageError(message)
    tracker = recipe.train.tracker
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise UsageError(f"train: tracker: {tracker} is not installed: pip install {tracker}, or write none")
    if recipe.train.precision == "fp16" and not torch.cuda.is_available():
        raise UsageError("train: precision: fp16 needs a GPU; write bf16 or fp32")


def _check_same_run(recipe: Recipe, start: Path) -> None:
    """Going on means going on with the same: another task or optimiser is refused by name, other data are said."""
    path = start.parent / "recipe.yaml"
    if not path.is_file():
        raise UsageError(f"resume: {start} has no recipe.yaml beside it, so it is not known what it belongs to")
    before = load_recipe(path, [])
    pairs = {name: (getattr(before, name), getattr(recipe, name)) for name in TASK}
    pairs |= {f"train.{name}": (getattr(before.train, name), getattr(recipe.train, name)) for name in KEPT}
    for name, (old, new) in pairs.items():
        if old != new:
            raise UsageError(
                f"resume: {name} is {new}, but {start} is of a run with {old}; keep that, or start a run of its own "
                f"with init_from=MODEL, where MODEL is what this one exports"
            )
    _check_same_model(before, recipe, start)
    names = [f"data.{field.name}" for field in fields(recipe.data) if field.name != "workers"]
    names += [f"train.{name}" for name in NOTED] + ["train.steps"] * (recipe.train.schedule != "constant")
    for name in names:
        old, new = attrgetter(name)(before), attrgetter(name)(recipe)
        if old != new:
            log.warning("resume: from here on %s is %s; it was %s", name, new, old)


def _check_same_model(before: Recipe, recipe: Recipe, start: Path) -> None:
    """The model begun with, wherever it lies: VAE, noise schedule and prompt come from it, not from a checkpoint."""
    if before.init_from == recipe.init_from:
        return
    try:
        old = fingerprint(find_model(str(before.init_from), weights=False))
    except VSRError:
        text = "resume: init_from was %s, which is not there any more; VAE, noise schedule and prompt now come from %s"
        log.warning(text, before.init_from, recipe.init_from)
        return
    if old != fingerprint(find_model(str(recipe.init_from), weights=False)):
        raise UsageError(
            f"resume: init_from is {recipe.init_from}, but {start} is of a run that began with {before.init_from}, "
            f"another model; keep that, or start a run of its own"
        )


def latent_folder(recipe: Recipe) -> Path:
    """Where the latents of this recipe, model and code belong."""
    model, dtype = find_model(str(recipe.init_from)), DTYPES[recipe.train.precision]
    return recipe.data.latent_cache / cache_key(recipe.data, recipe.train.seed, model, dtype)


def open_cache(recipe: Recipe) -> LatentCache:
    """The latents of this recipe; InputError names the command that makes them."""
    command = (
        f"python -m finetune.scripts.cache_latents RECIPE.yaml --degradations 4 "
        f"data.latent_cache={recipe.data.latent_cache}        (4, or what it was begun with; and all overrides of the "
        f"training)"
    )
    data, crop = recipe.data, recipe.data.latent_crop
    parts = (Fraction(crop, data.height), Fraction(crop, data.width)) if crop else None
    seed = recipe.train.seed if data.latent_seed is None else data.latent_seed
    return LatentCache(latent_folder(recipe), seed, command, parts)


def _check_data(recipe: Recipe) -> None:
    """Make the first sample of each kind, which shows a missing folder, a wrong crop or a wrong degradation."""
    if recipe.data.latent_cache:
        open_cache(recipe)[("video", 0)]
        return
    data = PairDataset(recipe.data, recipe.train.seed)
    for kind in data.kinds:
        data[kind, 0]
