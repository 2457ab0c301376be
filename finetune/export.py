"""From a trained student to a folder that `vsr.load_pipeline` reads."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from vsr.pipelines.dove import DOVEPipeline
from vsr.pipelines.lora import FILE, METADATA
from vsr.pipelines.settings import PipelineSettings

LORA_FOLDER = "lora"


def export(
    pipe: DOVEPipeline,
    weights: dict[str, torch.Tensor],
    folder: Path,
    dtype: torch.dtype,
    component: str = "transformer",
) -> None:
    """Write the pipeline with the student's weights in ``dtype``; complete or not at all.

    A LoRA is written twice: merged into the model, so that the folder is used like any other, and by itself with its
    alpha in ``lora/``, for use on the base model.

    Args:
        pipe: with the student in it, its LoRA adapter in place if it has one.
        weights: the student's state dict, gathered from all processes.
        component: "transformer" or "vae", which the student is; the other part is written as it was used, in the
            precision of the training.
    """
    temporary = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    parts = {"vae": pipe.vae, "transformer": pipe.transformer}
    parts[component] = _student(parts[component], weights).to(dtype)
    exported = DOVEPipeline(**parts, scheduler=pipe.scheduler, **_settings(pipe))
    exported.prompt_embedding = pipe.prompt_embedding
    exported.save_pretrained(temporary)
    if component == "transformer" and getattr(pipe.transformer, "peft_config", None):
        _save_lora(pipe.transformer, weights, temporary / LORA_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _settings(pipe: DOVEPipeline) -> dict:
    return {field.name: pipe.config[field.name] for field in fields(PipelineSettings)}


def _student(network: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """A copy of the network with these weights, on the CPU, a LoRA merged into them."""
    copy = type(network).from_config(network.config)
    adapters = getattr(network, "peft_config", {})
    for name, config in adapters.items():
        copy.add_adapter(config, adapter_name=name)
    copy.load_state_dict({name.removeprefix("vae."): tensor.float().cpu() for name, tensor in weights.items()})
    if adapters:
        copy.fuse_lora()
        copy.unload_lora()
    return copy


def _save_lora(network: nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    (name,) = network.peft_config
    state = get_peft_model_state_dict(network, state_dict=weights, adapter_name=name)
    prefixed = {f"transformer.{key}": tensor.float().cpu().contiguous() for key, tensor in state.items()}
    config = network.peft_config[name].to_dict()
    kept = {key: config[key] for key in ("r", "lora_alpha")} | {"target_modules": sorted(config["target_modules"])}
    described = {f"transformer.{key}": value for key, value in kept.items()}
    folder.mkdir(parents=True)
    save_file(prefixed, folder / FILE, {"format": "pt", METADATA: json.dumps(described)})
