"""DOVE, stage 1: adaptation in latent space (arXiv:2505.16239).

Networks   student: the CogVideoX transformer.
One step   z_sr = one step from z_lq at the timestep of the pipeline.
Loss       mean squared error of latents, over all latents that the network sees, with the repeated ones; option
           ``psnr``: its logarithm, clip by clip. Option ``frame_weight``: the same of the differences between
           adjacent latents, the idea of L_frame of stage 2, against flicker.
Recipe     configs/dove_s1.yaml
Deviation  the posterior's mode instead of a sample of it, for input and target, so that the target carries no noise.
           A model with ``stagger_frames`` is taught in every second step as it sees odd tiles.
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
        frame_weight: of the same loss of the differences between adjacent latents.
    """

    def __init__(self, pipe: DOVEPipeline, *, psnr: bool = False, frame_weight: float = 0.0) -> None:
        self.pipe, self._staggered = pipe, False
        self._distance, self._frame_weight = psnr_loss if psnr else F.mse_loss, frame_weight
        self.networks = {"student": pipe.transformer}
        self.phases = (Phase("latent", ("student",), self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """mean (z_sr - z_gt)^2, or its logarithm, and of adjacent latents; the means are what is logged."""
        z_lq, z_gt = self._latents(batch)
        ways = {"padded": True, "staggered": self._staggered}
        z_sr = self.pipe.denoise(z_lq, transformer=self.networks["student"], **ways)
        copies = denoiser.copies(self.pipe.transformer, z_gt.shape[2], self._staggered)
        target = denoiser.repeat_ends(z_gt, *copies).float()
        total, terms = self._distance(z_sr, target), {"mse": F.mse_loss(z_sr, target).detach()}
        if self._frame_weight and target.shape[2] > 1:
            change, true_change = z_sr.diff(dim=2), target.diff(dim=2)
            total = total + self._frame_weight * self._distance(change, true_change)
            terms["frame"] = F.mse_loss(change, true_change).detach()
        return total, terms

    def end_step(self, step: int) -> None:
        self._staggered = self.pipe.config.stagger_frames and step % 2 == 1

    def state_dict(self) -> dict[str, bool]:
        return {"staggered": self._staggered}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        self._staggered = state.get("staggered", False)

    @torch.no_grad()
    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """z_lq and z_gt, encoded now unless the batch comes from the latent cache."""
        if "z_lq" in batch:
            return batch["z_lq"], batch["z_gt"]
        return self.pipe.encode(batch["x_lq"]), self.pipe.encode(batch["x_gt"])
