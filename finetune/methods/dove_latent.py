"""DOVE, stage 1: adaptation in latent space (arXiv:2505.16239).

Networks   student: the CogVideoX transformer.
One step   z_sr = one step from z_lq at the timestep of the pipeline.
Loss       mean squared error of latents, over all latents that the network sees, with the repeated ones; option
           ``psnr``: its logarithm, clip by clip.
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
    """

    def __init__(self, pipe: DOVEPipeline, *, psnr: bool = False) -> None:
        self.pipe, self._psnr, self._staggered = pipe, psnr, False
        self.networks = {"student": pipe.transformer}
        self.phases = (Phase("latent", ("student",), self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """mean (z_sr - z_gt)^2, or its logarithm; the mean is what is logged in either case."""
        z_lq, z_gt = self._latents(batch)
        ways = {"padded": True, "staggered": self._staggered}
        z_sr = self.pipe.denoise(z_lq, transformer=self.networks["student"], **ways)
        copies = denoiser.copies(self.pipe.transformer, z_gt.shape[2], self._staggered)
        target = denoiser.repeat_ends(z_gt, *copies).float()
        mse = F.mse_loss(z_sr, target)
        return psnr_loss(z_sr, target) if self._psnr else mse, {"mse": mse.detach()}

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
