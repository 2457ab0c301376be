"""Pipelines by the name of their class in ``model_index.json``."""

import json
import logging
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel, DiffusionPipeline

from vsr import codec
from vsr.devices import choose_device, choose_dtype
from vsr.errors import ModelError
from vsr.pipelines.dove import DOVEPipeline
from vsr.windows import Grid

log = logging.getLogger(__name__)

PIPELINES = {"DOVEPipeline": DOVEPipeline, "CogVideoXPipeline": DOVEPipeline}
"""Name in model_index.json: class. A folder published as CogVideoXPipeline is a DOVE model."""

LOCAL_FOLDERS = {"pretrained_models", "checkpoint", "results"}
"""A missing folder below one of these is a mistake in a path, never a name on the hub."""

COMPONENTS = {
    "vae": {"AutoencoderKLCogVideoX"},
    "transformer": {"CogVideoXTransformer3DModel"},
    "scheduler": {"CogVideoXDPMScheduler", "CogVideoXDDIMScheduler"},
}


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
    """
    folder = find_model(str(folder))
    device = choose_device(str(device))
    dtype = choose_dtype(dtype, device)
    kind = PIPELINES[read_index(folder)["_class_name"]]
    try:
        pipe = kind.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder}: the model cannot be loaded: {error}") from error
    return pipe.to(device)


def find_model(name: str) -> Path:
    """The folder of a model; downloads it first when ``name`` is ``org/name`` on the hub and no such path exists."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    looks_local = folder.parent.exists() or folder.parts[0] in LOCAL_FOLDERS
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not looks_local:
        log.info("%s is not a folder here: asking the Hugging Face hub for it", name)
        return _download(name)
    raise ModelError(
        f"{name}: no such model folder. Expected a folder with model_index.json, vae, transformer and scheduler; "
        f"the README says where the DOVE weights are and how the folder must look"
    )


def _download(name: str) -> Path:
    kept = {"text_encoder": None, "tokenizer": None}
    try:
        return Path(DiffusionPipeline.download(name, use_safetensors=True, trust_remote_code=False, **kept))
    except Exception as error:  # the hub's client raises a dozen kinds
        raise ModelError(f"{name}: neither a folder here nor a model that the hub gave: {error}") from error


def read_index(folder: Path) -> dict:
    """``model_index.json``, checked: a known pipeline made of known classes, each with its folder.

    Diffusers imports whatever classes this file names, so nothing but the known ones gets that far.
    """
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text())
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: expected the index of a diffusers pipeline, got {error!r}") from error
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise ModelError(f"{path}: a {kind} is not supported; expected one of {', '.join(PIPELINES)}")
    for name, classes in COMPONENTS.items():
        library, class_name = index.get(name) or (None, None)
        if library != "diffusers" or class_name not in classes:
            raise ModelError(f"{path}: {name} must be {' or '.join(sorted(classes))} of diffusers, got {class_name}")
        if not (folder / name).is_dir():
            raise ModelError(f"{folder / name}: missing; the model folder is incomplete")
    return index


def inspect(folder: Path) -> tuple[Grid, dict]:
    """The sizes that a model takes and its ``model_index.json``, from the configuration files alone: no weights."""
    index = read_index(folder)
    try:
        transformer = CogVideoXTransformer3DModel.load_config(folder / "transformer", local_files_only=True)
        vae_config = AutoencoderKLCogVideoX.load_config(folder / "vae", local_files_only=True)
        with torch.device("meta"):
            vae = AutoencoderKLCogVideoX.from_config(vae_config)
        multiple = codec.spatial_factor(vae) * transformer["patch_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: the configuration of the networks cannot be read: {error}") from error
    return Grid(multiple=multiple, step=codec.frame_step(vae), max_pixels=codec.UNTILED_PIXELS), index
