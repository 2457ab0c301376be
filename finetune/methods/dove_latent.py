"""DOVE, stage 1: adaptation in latent space (arXiv:2505.16239).

Networks   student: the CogVideoX transformer.
One step   z_sr = one step from z_lq at the timestep of the pipeline.
Loss       mean squared error of latents, over all latents that the network sees, with the repeated first one; option
           ``psnr``: its logarithm, clip by clip.
Recipe     configs/dove_s1.yaml
Deviation  the posterior's mode instead of a sample of it, for input and target, so that the target carries no noise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.losses.latent import psnr_loss
from finetune.methods.base import Batch, Method, Phase
from vsr import denoiser
from vsr.pipelines.dove import DOVEPipeline


class DOVELatent(Method):
    """Stage 1.

    Args:
        pipe: the model; its transformer learns.
        psnr: minimise `psnr_loss` instead of the mean squared error.
    """

    def __init__(self, pipe: DOVEPipeline, *, psnr: bool = False) -> None:
        self.pipe, self._psnr = pipe, psnr
        self.networks = {"student": pipe.transformer}
        self.phases = (Phase("latent", ("student",), self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """mean (z_sr - z_gt)^2, or its logarithm; the mean is what is logged in either case."""
        z_lq, z_gt = self._latents(batch)
        z_sr = self.pipe.denoise(z_lq, padded=True, transformer=self.networks["student"])
        target = denoiser.repeat_ends(z_gt, z_sr.shape[2] - z_gt.shape[2]).float()
        mse = F.mse_loss(z_sr, target)
        return psnr_loss(z_sr, target) if self._psnr else mse, {"mse": mse.detach()}

    @torch.no_grad()
    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """z_lq and z_gt, encoded now unless the batch comes from the latent cache."""
        if "z_lq" in batch:
            return batch["z_lq"], batch["z_gt"]
        return self.pipe.encode(batch["x_lq"]), self.pipe.encode(batch["x_gt"])
