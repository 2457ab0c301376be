"""DOVE, stage 2: refinement in pixel space, on images and short videos mixed (arXiv:2505.16239).

Networks   student: the CogVideoX transformer.
One step   as in stage 1; then decoded with gradient.
Loss       MSE + lambda_1 DISTS + lambda_2 L1 of frame differences, on pixels clamped to [0, 1].
Recipe     configs/dove_s2.yaml
Deviation  the posterior's mode. Option ``temporal_decode``: videos go through the VAE as inference sends them, with
           temporal compression; by default frames are encoded and decoded one by one, as in the paper's code.
           A model with ``stagger_frames`` learns here only as even tiles are seen.
"""

import torch
from einops import rearrange
from torch import Tensor

from finetune.losses.pixel import PerceptualDistance, refinement_loss
from finetune.methods.base import Batch, Method, Phase
from vsr.pipelines.dove import DOVEPipeline


class DOVEPixel(Method):
    """Stage 2.

    Args:
        pipe: usually what stage 1 exported.
        perceptual: distance of images in [0, 1]; None: no such term.
        perceptual_weight, frame_weight: lambda_1 and lambda_2.
        temporal_decode: encode and decode videos with temporal compression; clips then have 8k+1 frames.
    """

    def __init__(
        self,
        pipe: DOVEPipeline,
        perceptual: PerceptualDistance | None,
        *,
        perceptual_weight: float = 1.0,
        frame_weight: float = 1.0,
        temporal_decode: bool = False,
    ) -> None:
        self.pipe, self._perceptual, self._temporal = pipe, perceptual, temporal_decode
        self._weights = {"perceptual_weight": perceptual_weight, "frame_weight": frame_weight}
        self.networks = {"student": pipe.transformer}
        self.phases = (Phase("pixel", ("student",), self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The refinement loss of the restored pixels."""
        with torch.no_grad():
            z_lq = self._encode(batch["x_lq"])
        z_sr = self.pipe.denoise(z_lq, transformer=self.networks["student"])
        x_sr, x_gt = ((x.float() * 0.5 + 0.5).clamp(0, 1) for x in (self._decode(z_sr), batch["x_gt"]))
        return refinement_loss(x_sr, x_gt, perceptual=self._perceptual, **self._weights)

    def _encode(self, x: Tensor) -> Tensor:
        if self._temporal:
            return self.pipe.encode(x)
        z = self.pipe.encode(rearrange(x, "b c f h w -> (b f) c 1 h w"))
        return rearrange(z, "(b f) c 1 h w -> b c f h w", b=len(x))

    def _decode(self, z: Tensor) -> Tensor:
        if self._temporal:
            return self.pipe.decode(z)
        x = self.pipe.decode(rearrange(z, "b c f h w -> (b f) c 1 h w"))
        return rearrange(x, "(b f) c 1 h w -> b c f h w", b=len(z))
