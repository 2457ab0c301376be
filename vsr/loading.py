"""A model made ready for a run: embeddings of its prompts, weights, LoRA, and where all of it lies."""

from pathlib import Path

import torch
from diffusers.utils.logging import disable_progress_bar
from torch import Tensor

from vsr import memory, pipelines
from vsr.offload import offload_transformer
from vsr.pipelines.lora import fuse_lora
from vsr.restore import Pipeline


def load_for_run(
    model: Path,
    prompts: set[str],
    dtype: torch.dtype,
    device: torch.device,
    *,
    lora: tuple[Path, float] | None = None,
    vae_tiling: bool = False,
    offload: bool = False,
) -> tuple[Pipeline, dict[str, Tensor]]:
    """The pipeline, and the embedding (1, L, D) of every prompt.

    Args:
        lora: a checked file, and its scale.
        vae_tiling: diffusers' own tiles and slices in the VAE.
        offload: the transformer stays in host memory, block by block on the device.
    """
    disable_progress_bar()  # of the parts of a model; the files have their own
    embeddings = pipelines.embeddings_of(model, prompts)  # first: a text encoder goes before the rest comes
    pipe = pipelines.load_pipeline(model, dtype, "cpu" if offload else device)
    if lora:
        fuse_lora(pipe, *lora)
    if vae_tiling:
        pipe.vae.enable_slicing()
        pipe.vae.enable_tiling()
    if offload:
        with memory.naming_memory("the VAE", "a smaller model"):
            offload_transformer(pipe, device)
    return pipe, embeddings
