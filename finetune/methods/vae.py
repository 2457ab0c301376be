"""A video VAE of its own: the compression that the transformer of a small model works in.

Networks   student: `Autoencoder`, the VAE of the pipeline in one module.
One step   x -> posterior -> a sample of it -> x again, through time as inference sends clips.
Loss       mean |x_rec - x| + kl_weight * KL(posterior || N(0, 1)), the KL divergence averaged over latents.
Recipe     configs/tiny/vae.yaml
Source     Kingma and Welling, arXiv:1312.6114, equations 8 to 10; L1 instead of a learned variance.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from finetune.data.keys import Kind, Purpose, keyed_generator
from finetune.methods.base import Batch, Method, Phase
from vsr import vae as fast
from vsr.pipelines.dove import DOVEPipeline


class Autoencoder(nn.Module):
    """Encoder, posterior and decoder in one call, so that one wrapper sees all gradients."""

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor, generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """(B, 3, F, H, W) in [-1, 1] -> its reconstruction, of the same shape, and the KL divergence, a scalar."""
        posterior = DiagonalGaussianDistribution(fast.encode(self.vae, x).float())
        noise = torch.stack([torch.randn(posterior.mean.shape[1:], generator=generator) for generator in generators])
        z = posterior.mean + posterior.std * noise.to(x.device)
        terms = posterior.mean.square() + posterior.var - 1.0 - posterior.logvar
        return fast.decode(self.vae, z.to(x.dtype)), 0.5 * terms.mean()


class VAE(Method):
    """Trains the VAE of a pipeline on ground truth; the transformer stays as it is.

    Args:
        pipe: its VAE learns.
        kl_weight: of the KL divergence; small, so that little noise is added to latents.
        seed: of the samples of the posterior, which depend on it and on the number of the clip among all that are seen.
    """

    component = "vae"

    def __init__(self, pipe: DOVEPipeline, *, kl_weight: float = 1.0e-6, seed: int = 0) -> None:
        self.pipe, self._kl_weight, self._seed = pipe, kl_weight, seed
        self.networks = {"student": Autoencoder(pipe.vae.requires_grad_(True))}
        self.phases = (Phase("vae", ("student",), self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 of pixels and the weighted KL divergence."""
        x = batch["x_gt"]
        x_rec, kl = self.networks["student"](x, [self._generator(batch["kind"], int(n)) for n in batch["number"]])
        l1 = F.l1_loss(x_rec.float(), x)
        return l1 + self._kl_weight * kl, {"l1": l1.detach(), "kl": kl.detach()}

    def _generator(self, kind: Kind, number: int) -> torch.Generator:
        draw = keyed_generator(Purpose.POSTERIOR, self._seed, kind, number).integers(2**63)
        return torch.Generator().manual_seed(int(draw))
