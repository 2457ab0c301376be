"""The engine as launched: one process, DDP, FSDP2 or DeepSpeed, by accelerate. What it got is said, and checked."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import nn
from torch.distributed.fsdp import FSDPModule

from finetune.recipe import Recipe, TrainConfig
from vsr.errors import UsageError

log = logging.getLogger("finetune")

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Names of ``train.precision``."""
PATIENCE = timedelta(hours=1)
"""How long the others wait for the main process, which validates and exports alone."""
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Engines that need all processes to run a network."""


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The engine as launched.

    Raises:
        UsageError: it is not the one that was asked for, or cannot do what the recipe says.
    """
    config = recipe.train
    steps = GradientAccumulationPlugin(num_steps=config.accumulation)  # as a number, a launcher's would be believed
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        gradient_accumulation_plugin=steps,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=recipe.output_dir,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    got = accelerator.distributed_type
    check_sharding(got, recipe)
    configure(accelerator, config)
    if accelerator.is_main_process:
        log.info(
            "%d process(es), %s, %s, on %s", accelerator.num_processes, got.value, config.precision, accelerator.device
        )
    return accelerator


def check_sharding(got: DistributedType, recipe: Recipe) -> None:
    """Raise UsageError where accelerate runs another engine than was asked for, or one that the recipe cannot have."""
    config = recipe.train
    wanted = {
        DistributedType.FSDP: os.environ.get("ACCELERATE_USE_FSDP", "false") == "true",
        DistributedType.DEEPSPEED: os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true",
    }
    for kind, asked in wanted.items():
        if asked and got != kind:
            raise UsageError(f"{kind.value} was asked for, but accelerate runs {got.value}: it needs a GPU per process")
    if got in SHARDED and config.lora and config.precision == "fp16":
        raise UsageError(
            f"train: precision: {got.value} cannot clip the gradients of a LoRA in fp16; write bf16, or launch with "
            f"ACCELERATE_CONFIG=configs/accelerate/ddp.yaml"
        )
    if got in SHARDED and recipe.method == "vae":
        raise UsageError(
            f"method: {got.value} is set up to cut up transformers, not a VAE; launch with "
            f"ACCELERATE_CONFIG=configs/accelerate/ddp.yaml"
        )
    if got in SHARDED and config.ema_decay is not None:
        raise UsageError(
            f"train: ema_decay: an average needs whole weights, and {got.value} cuts them up; write null, or launch "
            f"with ACCELERATE_CONFIG=configs/accelerate/ddp.yaml"
        )


@contextmanager
def gathered(network: nn.Module) -> Iterator[bool]:
    """Inside, a network that FSDP2 has cut up is whole, and one process can run it without the others.

    All processes have to come here. Says whether it was cut up so.
    """
    parts = [part for part in network.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
    groups = [part._get_fsdp_state()._fsdp_param_group for part in parts]  # there is no other way to ask
    cut_again = [bool(group and group.post_forward_mesh_info) for group in groups]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield bool(parts)
    finally:
        for part, after_forward in zip(parts, cut_again, strict=True):
            part.set_reshard_after_forward(after_forward, recurse=False)
            part.reshard()


def configure(accelerator: Accelerator, config: TrainConfig) -> None:
    """What the engines would guess: DeepSpeed the clipping and the batch size, FSDP2 in what to add up gradients."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "gradient_clipping": config.max_grad_norm,
            "train_micro_batch_size_per_gpu": config.batch_size,
        }
        if config.precision == "bf16":  # else gradients that are not finite are applied, before the trainer sees them
            accelerator.state.deepspeed_plugin.deepspeed_config.setdefault("bf16", {})["check_grad_overflow"] = True
    if accelerator.is_fsdp2 and config.precision != "fp32":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=DTYPES[config.precision], reduce_dtype=torch.float32
        )
