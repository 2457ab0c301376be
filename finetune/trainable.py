"""Which weights of a network learn: all of them, or a low-rank update. A setting, not a class hierarchy."""

from collections.abc import Iterator
from difflib import get_close_matches

import torch
from torch import nn

from finetune.recipe import LoraConfig
from vsr.errors import UsageError


def make_trainable(network: nn.Module, lora: LoraConfig | None, frozen_dtype: torch.dtype) -> None:
    """Prepare a network in place: what learns is float32 and requires gradients.

    Args:
        network: a diffusers model.
        lora: None for full fine-tuning.
        frozen_dtype: of the weights that do not learn.

    Raises:
        UsageError: no part of the network has the name of a target.
    """
    if lora is None:
        network.requires_grad_(True).float()
        return
    _check_targets(network, lora.target_modules)
    from peft import LoraConfig as PeftLoraConfig

    network.requires_grad_(False).to(frozen_dtype)
    network.add_adapter(PeftLoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules)))
    for parameter in trainable(network):
        parameter.data = parameter.data.float()


def _check_targets(network: nn.Module, targets: tuple[str, ...]) -> None:
    """Every target is the end of some name: peft leaves out those that are not, without a word."""
    names = [name for name, _ in network.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            ends = {".".join(name.split(".")[-parts:]) for name in names for parts in (1, 2)}
            hint = f"; did you mean {' or '.join(close)}?" if (close := get_close_matches(target, ends)) else ""
            raise UsageError(f"train: lora: target_modules: the network has no {target!r}{hint}")


def trainable(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that learn."""
    return (parameter for parameter in network.parameters() if parameter.requires_grad)
