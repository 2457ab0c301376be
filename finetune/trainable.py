"""Which weights of a network learn: all of them, or a low-rank update. A setting, not a class hierarchy."""

from collections.abc import Iterator

import torch
from torch import nn

from finetune.recipe import LoraConfig


def make_trainable(network: nn.Module, lora: LoraConfig | None, frozen_dtype: torch.dtype) -> None:
    """Prepare a network in place: what learns is float32 and requires gradients.

    Args:
        network: a diffusers model.
        lora: None for full fine-tuning.
        frozen_dtype: of the weights that do not learn.
    """
    if lora is None:
        network.requires_grad_(True).float()
        return
    from peft import LoraConfig as PeftLoraConfig

    network.requires_grad_(False).to(frozen_dtype)
    network.add_adapter(PeftLoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules)))
    for parameter in trainable(network):
        parameter.data = parameter.data.float()


def trainable(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that learn."""
    return (parameter for parameter in network.parameters() if parameter.requires_grad)
