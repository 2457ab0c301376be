"""Write a DOVE model of toy size with random weights: for tests and for trying the programs without any download.

    python -m finetune.scripts.random_model --output pretrained_models/random

It restores nothing: it has the real classes and every part of a model folder, and that is all.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel

from vsr.pipelines.dove import DOVEPipeline

LATENT_CHANNELS, TEXT_LENGTH, TEXT_DIM = 4, 8, 16

LAYOUTS = {
    "1.0-2b": {"patch_size_t": None, "patch_bias": True, "use_rotary_positional_embeddings": False},
    "1.0-5b": {"patch_size_t": None, "patch_bias": True, "use_rotary_positional_embeddings": True},
    "1.5-5b": {"patch_size_t": 2, "patch_bias": False, "use_rotary_positional_embeddings": True},
}
"""What tells the three published CogVideoX transformers apart, besides their size."""


def random_pipeline(layout: str = "1.5-5b", seed: int = 0, levels: int = 4, **config) -> DOVEPipeline:
    """A pipeline of toy size with random weights.

    Args:
        layout: one of `LAYOUTS`.
        levels: resolutions of the VAE: 4 compresses 8 times in space like CogVideoX, 3 compresses 4 times.
        config: settings of `DOVEPipeline`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 16, 16)[:levels],
            down_block_types=("CogVideoXDownBlock3D",) * levels,
            up_block_types=("CogVideoXUpBlock3D",) * levels,
            latent_channels=LATENT_CHANNELS,
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.7,
        )
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=2,
            time_embed_dim=16,
            text_embed_dim=TEXT_DIM,
            max_text_seq_length=TEXT_LENGTH,
            **LAYOUTS[layout],
        )
        embedding = torch.randn(1, TEXT_LENGTH, TEXT_DIM)
    pipe = DOVEPipeline(vae.eval(), transformer.eval(), noise_schedule(layout), **config)
    pipe.prompt_embedding = embedding
    return pipe


def noise_schedule(layout: str) -> CogVideoXDPMScheduler:
    """The schedule that a published transformer was trained with."""
    return CogVideoXDPMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0 if layout == "1.0-2b" else 1.0,
        timestep_spacing="trailing",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model into")
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="1.5-5b", help="which CogVideoX to imitate")
    args = parser.parse_args(argv)
    random_pipeline(args.layout).save_pretrained(args.output)
    print(f"A randomly initialised model of toy size (it restores nothing) is in {args.output}")


if __name__ == "__main__":
    main()
