"""DOVE, stage 1: adaptation in latent space (arXiv:2505.16239).

Networks   student: the CogVideoX transformer.
One step   z_sr = one step from z_lq at the timestep of the pipeline.
Loss       mean squared error of latents, over all latents that the network sees, with the repeated first one.
Recipe     configs/dove_s1.yaml
Deviation  the posterior's mode instead of a sample of it, for input and target, so that the target carries no noise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.methods.base import Batch, Method, Phase
from vsr import denoiser
from vsr.pipelines.dove import DOVEPipeline


class DOVELatent(Method):
    """Stage 1."""

    def __init__(self, pipe: DOVEPipeline) -> None:
        self.pipe = pipe
        self.networks = {"student": pipe.transformer}
        self.phases = (Phase("latent", ("student",), self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """mean (z_sr - z_gt)^2."""
        with torch.no_grad():
            z_lq, z_gt = (self.pipe.encode(batch[name]) for name in ("x_lq", "x_gt"))
        z_sr = self.pipe.denoise(z_lq, padded=True, transformer=self.networks["student"])
        target = denoiser.repeat_first_latent(z_gt, z_sr.shape[2] - z_gt.shape[2])
        loss = F.mse_loss(z_sr, target.float())
        return loss, {"mse": loss.detach()}
