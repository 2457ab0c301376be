"""The networks that benchmarks run, with random weights: speed and memory do not depend on what weights say."""

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

from benchmarks.stage2_memory import TRANSFORMER, VAE
from finetune.scripts.random_model import LAYOUTS, noise_schedule
from vsr.pipelines.dove import DOVEPipeline

TOY_VAE = VAE | {"block_out_channels": (16, 32, 32, 64), "norm_num_groups": 4}
TOY_TRANSFORMER = LAYOUTS["1.5-5b"] | {"num_attention_heads": 4, "num_layers": 4, "text_embed_dim": 64}
ARCHITECTURES = {"toy": (TOY_VAE, TOY_TRANSFORMER), "cogvideox1.5-5b": (VAE, TRANSFORMER)}
"""Name: configurations of VAE and transformer. The toy is the real topology, an eighth as wide."""


def build(name: str, dtype: torch.dtype, device: str) -> DOVEPipeline:
    """One of `ARCHITECTURES`, made where it will run: 5.6 billion weights need not pass through the host."""
    vae_config, transformer_config = ARCHITECTURES[name]
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            vae = AutoencoderKLCogVideoX(**vae_config).eval().requires_grad_(False)
            transformer = CogVideoXTransformer3DModel(**transformer_config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    pipe = DOVEPipeline(vae, transformer, noise_schedule("1.5-5b"))
    config = transformer.config
    pipe.prompt_embedding = torch.zeros(1, config.max_text_seq_length, config.text_embed_dim, dtype=dtype)
    return pipe
