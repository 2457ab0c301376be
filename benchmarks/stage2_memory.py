"""Peak memory of one stage-2 step of the real 5.6 B model, counted in tensor bytes without running it.

    python -m benchmarks.stage2_memory [--frames 9 17 25] [--height 320 --width 640] [--batch 1]

Everything happens on torch's meta device: shapes and lifetimes are real, numbers are not. Counted are the activations
of forward and backward in bfloat16, with gradient checkpointing of transformer and VAE. Not counted: weights, gradients
and optimiser states (they depend on how the run is sharded), the allocator's slack, the workspace of kernels.
"""

import argparse

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.utils import logging as diffusers_logging

from finetune.methods.dove_pixel import DOVEPixel
from vsr.counting import PeakBytes
from vsr.pipelines.dove import DOVEPipeline

VAE = {
    "block_out_channels": (128, 256, 256, 512),
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 3,
    "scaling_factor": 0.7,
}
TRANSFORMER = {
    "num_attention_heads": 48,
    "num_layers": 42,
    "patch_size_t": 2,
    "patch_bias": False,
    "use_rotary_positional_embeddings": True,
    "sample_height": 300,
    "sample_width": 300,
}
"""What tells CogVideoX1.5-5B from the defaults of diffusers' classes."""


def peak_gigabytes(frames: int, height: int, width: int, batch: int, *, temporal: bool) -> float:
    """Activations of one step."""
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX(**VAE).to(torch.bfloat16).requires_grad_(False)
        transformer = CogVideoXTransformer3DModel(**TRANSFORMER).to(torch.bfloat16)
        x = torch.empty(batch, 3, frames, height, width)
        embedding = torch.empty(1, 226, 4096, dtype=torch.bfloat16)
    vae.enable_gradient_checkpointing()
    transformer.enable_gradient_checkpointing()
    pipe = DOVEPipeline(vae, transformer, CogVideoXDPMScheduler(prediction_type="v_prediction"))
    pipe.prompt_embedding = embedding
    method = DOVEPixel(pipe, None, temporal_decode=temporal)
    for parameter in transformer.parameters():
        parameter.grad = torch.empty_like(parameter)  # there already, so that backward allocates activations only
    weights = [*transformer.parameters(), *vae.parameters()]
    with PeakBytes([*weights, *(p.grad for p in weights if p.grad is not None), x, embedding]) as counter:
        loss, _ = method.loss({"x_lq": x, "x_gt": x})
        loss.backward()
    return counter.peak / 1e9


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[9, 17, 25])
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args(argv)
    diffusers_logging.set_verbosity_error()
    size = (args.height, args.width, args.batch)
    print(f"2 frames, one by one: {peak_gigabytes(2, *size, temporal=False):.1f} GB")
    for frames in args.frames:
        print(f"{frames} frames, temporal_decode: {peak_gigabytes(frames, *size, temporal=True):.1f} GB")


if __name__ == "__main__":
    main()
