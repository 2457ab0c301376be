"""The CogVideoX video transformer behind one layout: (B, C, f, h, w) latents in, the same shape out.

Hidden here: its own (B, f, C, h, w) layout, the rotary table, and the latent frames that are repeated until the
temporal patch divides their number: the first in front (CogVideoX 1.5; the published DOVE weights depend on it).
"""

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from einops import rearrange
from torch import Tensor, nn


def predict_v(
    transformer: nn.Module,
    z: Tensor,
    prompt_embedding: Tensor,
    timestep: Tensor,
    *,
    padded: bool = False,
    staggered: bool = False,
) -> Tensor:
    """One pass of the network: the velocity v at ``timestep``, with the sample z as the noisy latent.

    Args:
        transformer: a `CogVideoXTransformer3DModel`, or a wrapper of one (DDP, DeepSpeed).
        z: (B, C, f, h, w), any f >= 1; h and w multiples of the transformer's patch size.
        prompt_embedding: (1, L, D) or (B, L, D).
        timestep: (B,) or scalar, int64.
        padded: keep the repeated latents, so that f' >= f come back. The stage-1 loss of DOVE counts them.
        staggered: repeat the last latent, too, see `copies`.

    Returns:
        v: (B, C, f, h, w), or (B, C, f', h, w) when ``padded``.
    """
    network = getattr(transformer, "module", transformer)
    front, behind = copies(network, z.shape[2], staggered)
    latents = rearrange(repeat_ends(z, front, behind), "b c f h w -> b f c h w")
    v = transformer(
        hidden_states=latents.to(network.dtype),
        encoder_hidden_states=prompt_embedding.to(latents.device, network.dtype).expand(len(z), -1, -1),
        timestep=timestep.to(latents.device).expand(len(z)),
        image_rotary_emb=rotary_table(network, *latents.shape[-2:], latents.shape[1], latents.device),
        return_dict=False,
    )[0]
    v = rearrange(v, "b f c h w -> b c f h w")
    return v if padded else v[:, :, front : front + z.shape[2]]


def copies(transformer: CogVideoXTransformer3DModel, num_latents: int, staggered: bool = False) -> tuple[int, int]:
    """How often the first latent is repeated in front and the last behind, until the temporal patch divides the sum.

    Only the first, as CogVideoX does; ``staggered``: up to half a patch of the copies behind, so that patches begin at
    other frames.
    """
    patch = transformer.config.patch_size_t or 1
    number = -num_latents % patch
    behind = min(number, patch // 2) if staggered else 0
    return number - behind, behind


def repeat_ends(z: Tensor, front: int, behind: int = 0) -> Tensor:
    """(B, C, f, h, w) -> (B, C, front + f + behind, h, w)."""
    return torch.cat([z[:, :, :1]] * front + [z] + [z[:, :, -1:]] * behind, dim=2)


def rotary_table(
    transformer: CogVideoXTransformer3DModel, height: int, width: int, num_latents: int, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines of the rotary embedding for latents of (num_latents, height, width); None for sin/cos models.

    CogVideoX 1.0 stretches its grid over the training resolution, 1.5 counts integer positions. Unlike diffusers' own
    pipeline the latter is not capped at the training resolution: the positions simply go on.
    """
    config = transformer.config
    if not config.use_rotary_positional_embeddings:
        return None
    grid = (height // config.patch_size, width // config.patch_size)
    if config.patch_size_t is None:
        base = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
        crops = get_resize_crop_region_for_grid(grid, *base)
        return get_3d_rotary_pos_embed(config.attention_head_dim, crops, grid, num_latents, device=device)
    patches = num_latents // config.patch_size_t
    return get_3d_rotary_pos_embed(
        config.attention_head_dim, None, grid, patches, grid_type="slice", max_size=grid, device=device
    )
