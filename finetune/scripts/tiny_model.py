"""The networks of the small bundled model, before training."""

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXResnetBlock3D

from finetune.scripts.random_model import noise_schedule
from vsr.pipelines.dove import DOVEPipeline

SEED = 0
TEXT_LENGTH, TEXT_DIM = 1, 16
LATENT_CHANNELS = 8
MAX_PIXELS = 96 * 96
"""Larger frames are cut into tiles of the size that most of its training was on."""
TILE_OVERLAP = 44
"""Nearly half a tile: most pixels are the mean of several tiles."""


def untrained_pipeline() -> DOVEPipeline:
    """All parts of the model with random weights that follow from `SEED`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        tiles = {"max_pixels": MAX_PIXELS, "tile_overlap": TILE_OVERLAP, "stagger_frames": True, "mirror_tiles": True}
        pipe = DOVEPipeline(small_vae(), small_transformer(), noise_schedule("1.5-5b"), coefficients="float32", **tiles)
    pipe.prompt_embedding = torch.zeros(1, TEXT_LENGTH, TEXT_DIM)
    return pipe


def small_vae() -> AutoencoderKLCogVideoX:
    """Half the size in space and all frames: (3, F, H, W) -> (8, F, H / 2, W / 2).

    One group for all norms, so that levels of channels stay comparable, and residual branches that begin at zero: the
    network begins nearly linear, which it has to become first, and learns several times faster so.
    """
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(16, 32),
        down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=1,
        temporal_compression_ratio=1,
        scaling_factor=1.0,
    )
    for block in vae.modules():
        if isinstance(block, CogVideoXResnetBlock3D):
            torch.nn.init.zeros_(block.conv2.conv.weight)
            torch.nn.init.zeros_(block.conv2.conv.bias)
    return vae.eval()


def small_transformer() -> CogVideoXTransformer3DModel:
    """As CogVideoX 1.5, with tokens of 4 frames of 8x8 pixels; it begins as v = 0."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=64,
        num_layers=6,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        patch_size=4,
        patch_size_t=4,
        patch_bias=False,
        use_rotary_positional_embeddings=True,
        time_embed_dim=16,
        text_embed_dim=TEXT_DIM,
        max_text_seq_length=TEXT_LENGTH,
        sample_height=32,
        sample_width=32,
        sample_frames=33,
        temporal_compression_ratio=1,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    return transformer.eval()
