"""The transformer's weights in host memory, block by block on the device: 11 GB less there for CogVideoX1.5-5B."""

from typing import Any

import torch


def offload_transformer(pipe: Any, device: torch.device) -> None:
    """Keep the transformer's weights in host memory; the VAE goes to ``device``, where everything runs.

    Diffusers' group offload brings one block at a time; on CUDA it copies the next one, out of pinned memory, while the
    one before computes.

    Args:
        pipe: a `DOVEPipeline`; changed in place, once.
        device: where it runs from now on.
    """
    if pipe.transformer_offloaded:
        return
    pipe.transformer_offloaded = True
    pipe.vae.to(device)
    pipe.transformer.to("cpu")
    pipe.transformer.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda",
    )
