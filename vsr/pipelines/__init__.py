"""Pipelines by the name of their class in ``model_index.json``."""

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from vsr import codec, prompts
from vsr.devices import choose_device, choose_dtype
from vsr.errors import ModelError
from vsr.memory import is_out_of_memory, naming_memory
from vsr.pipelines.dove import DOVEPipeline
from vsr.pipelines.settings import PipelineSettings
from vsr.windows import Grid

log = logging.getLogger(__name__)

INDEX = "model_index.json"

PIPELINES = {"DOVEPipeline": DOVEPipeline, "CogVideoXPipeline": DOVEPipeline}
"""Name in model_index.json: class. A folder published as CogVideoXPipeline is a DOVE model."""

TEXT_ENCODER = "text_encoder/*.safetensors"
"""9.5 GB of CogVideoX's."""

LOCAL_FOLDERS = {"pretrained_models", "checkpoint", "results"}
"""A missing folder below one of these is a mistake in a path, never a name on the hub."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of a model folder."""

    classes: tuple[str, ...]
    """Classes of diffusers that it may be."""
    config: str
    """Its configuration file."""


COMPONENTS = {
    "vae": Component(classes=("AutoencoderKLCogVideoX",), config="config.json"),
    "transformer": Component(classes=("CogVideoXTransformer3DModel",), config="config.json"),
    "scheduler": Component(classes=("CogVideoXDPMScheduler", "CogVideoXDDIMScheduler"), config="scheduler_config.json"),
}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known about a model without its weights."""

    grid: Grid
    """The sizes that it takes."""
    settings: PipelineSettings
    """What it was trained for."""
    num_timesteps: int
    """Timesteps of its schedule."""
    configs: dict[str, dict[str, Any]]
    """Configurations of its parts by their names."""


def load_pipeline(
    folder: str | Path, dtype: str | torch.dtype = "auto", device: str | torch.device = "auto"
) -> DOVEPipeline:
    """Load a model folder, or a repository of the Hugging Face hub given as ``org/name``.

    Args:
        folder: a diffusers folder; its ``model_index.json`` says which pipeline it is.
        dtype: "auto" (bfloat16 where the hardware has it, else float32), a name, or a torch dtype.
        device: "auto" (CUDA, then MPS, then CPU) or a name.

    Raises:
        ModelError: the folder is missing, incomplete or of another kind.
        OutOfMemoryError: the model does not fit.
    """
    folder = find_model(str(folder))
    device = choose_device(str(device))
    dtype = choose_dtype(dtype, device)
    inspect(folder)
    kind = PIPELINES[_read_object(folder / INDEX)["_class_name"]]
    with naming_memory(
        "the model", "--is_cpu_offload, which keeps the transformer in host memory, or --dtype bfloat16"
    ):
        try:
            return kind.from_pretrained(folder, dtype=dtype).to(device)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{folder}: the model cannot be loaded: {error}") from error


def embeddings_of(folder: Path, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Embeddings (1, L, D) of prompts for the model in ``folder``, which need not be loaded."""
    length = _read_object(folder / "transformer" / "config.json").get("max_text_seq_length", 226)
    return prompts.prompt_embeddings(folder, wanted, length)


def find_model(name: str, *, weights: bool = True, wanted: Iterable[str] = ("",)) -> Path:
    """The folder of a model; downloads it first when ``name`` is ``org/name`` on the hub and no such path exists.

    Args:
        weights: False: the small files are enough for now.
        wanted: prompts; the text encoder is fetched when one of them has no stored embedding.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    could_be_on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and folder.parts[0] not in LOCAL_FOLDERS
    if could_be_on_hub and not folder.parent.exists():
        log.info("%s is not a folder here: asking the Hugging Face hub for it", name)
        return _download(name, tuple(wanted) if weights else None)
    raise ModelError(
        f"{name}: no such model folder. Expected a folder with model_index.json, vae, transformer and scheduler; "
        f"the README says where the DOVE weights are and how the folder must look"
    )


def _download(name: str, wanted: tuple[str, ...] | None) -> Path:
    """Fetch what a folder needs, and no more: the text encoder only where no embedding replaces it.

    Args:
        wanted: prompts; None: the small files only, of the text encoder those that tell that there is one.
    """
    from huggingface_hub import snapshot_download

    small = [INDEX, *(f"{part}/*.json" for part in (*COMPONENTS, "text_encoder")), f"{prompts.FOLDER}/*", "tokenizer/*"]
    large = [f"{part}/*.safetensors" for part in COMPONENTS]
    try:
        folder = Path(snapshot_download(name, allow_patterns=small))
        if wanted is not None:
            text = [] if all(prompts.find_embedding(folder, prompt) for prompt in wanted) else [TEXT_ENCODER]
            snapshot_download(name, allow_patterns=small + large + text)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise ModelError(f"{name}: neither a folder here nor a model that the hub gave: {error}") from error
    return folder


def inspect(folder: Path) -> ModelFacts:
    """Check a model folder by its small files; no weights are read.

    Diffusers imports whatever classes an index names, and follows a configuration that is a name instead of a mapping,
    even to the hub. So all of these files are read here first, and only known classes and mappings get any further.
    """
    index = _read_object(folder / INDEX)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise ModelError(f"{folder / INDEX}: a {kind} is not supported; expected one of {', '.join(PIPELINES)}")
    for name, component in COMPONENTS.items():
        named = index.get(name)
        if named not in [["diffusers", known] for known in component.classes]:
            raise ModelError(
                f"{folder / INDEX}: {name} must be {' or '.join(component.classes)} of diffusers, got {named}"
            )
    configs = {name: _read_object(folder / name / part.config) for name, part in COMPONENTS.items()}
    try:
        known = {field.name: index[field.name] for field in fields(PipelineSettings) if field.name in index}
        settings = PipelineSettings(**known)
        with torch.device("meta"):
            vae = AutoencoderKLCogVideoX.from_config(configs["vae"])
        multiple = codec.spatial_factor(vae) * int(configs["transformer"]["patch_size"])
        steps = int(configs["scheduler"].get("num_train_timesteps", 1000))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: the configuration makes no sense: {error}") from error
    if max(settings.timestep, settings.noise_step) >= steps:
        raise ModelError(f"{folder / INDEX}: a timestep is not below the {steps} of the schedule")
    bounds = {"max_pixels": settings.max_pixels, "tile_overlap": settings.tile_overlap}
    grid = Grid(multiple=multiple, step=codec.frame_step(vae), **bounds)
    return ModelFacts(grid=grid, settings=settings, num_timesteps=steps, configs=configs)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, and nothing else that JSON can be."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: missing or damaged; the model folder is incomplete ({error})") from error
    if not isinstance(tree, dict):
        raise ModelError(f"{path}: expected a JSON object, got {tree!r}")
    return tree
