"""DOVE: one pass of the CogVideoX transformer from the low-quality latent to the restored one (arXiv:2505.16239)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
)
from diffusers.loaders import CogVideoXLoraLoaderMixin
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from vsr import codec, denoiser, one_step, prompts
from vsr.errors import UsageError
from vsr.pipelines.settings import DEFAULTS, PipelineSettings
from vsr.restore import RestoreSettings, restore_frames
from vsr.vae import Memory
from vsr.windows import Grid


@dataclass
class VideoOutput(BaseOutput):
    """``frames``: the restored clip, (F, H, W, 3) uint8 or a list of PIL images, like the input."""

    frames: np.ndarray | list[Image.Image]


class DOVEPipeline(DiffusionPipeline, CogVideoXLoraLoaderMixin):
    """One-step restoration with the networks of CogVideoX 1.0-2B, 1.0-5B and 1.5-5B.

    Loads a folder published as `CogVideoXPipeline` as it is. What training and inference must share is configuration
    and is saved with the weights in ``model_index.json``.

    Args:
        text_encoder, tokenizer: None in normal use; only an embedding that is stored nowhere needs them.
        scale, upscale_mode, timestep, noise_step, posterior, coefficients, max_pixels, tile_overlap,
            stagger_frames, mirror_tiles: see `PipelineSettings`.
    """

    model_cpu_offload_seq = "text_encoder->transformer"
    _exclude_from_cpu_offload = ["vae"]  # 0.4 GB, and its weights are used directly
    _optional_components = ["text_encoder", "tokenizer"]

    def __init__(
        self,
        vae: AutoencoderKLCogVideoX,
        transformer: CogVideoXTransformer3DModel,
        scheduler: CogVideoXDDIMScheduler | CogVideoXDPMScheduler,
        text_encoder: T5EncoderModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        scale: float = DEFAULTS.scale,
        upscale_mode: str = DEFAULTS.upscale_mode,
        timestep: int = DEFAULTS.timestep,
        noise_step: int = DEFAULTS.noise_step,
        posterior: str = DEFAULTS.posterior,
        coefficients: str = DEFAULTS.coefficients,
        max_pixels: int | None = DEFAULTS.max_pixels,
        tile_overlap: int = DEFAULTS.tile_overlap,
        stagger_frames: bool = DEFAULTS.stagger_frames,
        mirror_tiles: bool = DEFAULTS.mirror_tiles,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, transformer=transformer, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer
        )
        settings = PipelineSettings(
            scale=scale,
            upscale_mode=upscale_mode,
            timestep=timestep,
            noise_step=noise_step,
            posterior=posterior,
            coefficients=coefficients,
            max_pixels=max_pixels,
            tile_overlap=tile_overlap,
            stagger_frames=stagger_frames,
            mirror_tiles=mirror_tiles,
        )
        self.register_to_config(**asdict(settings))
        self.prompt_embedding: Tensor | None = None
        """(1, L, D) of the empty prompt."""
        self.vae_memory = Memory()
        """How much of the VAE's activations to hold at once."""
        self.transformer_offloaded = False
        """Its weights wait in host memory; set by `vsr.offload.offload_transformer`."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> "DOVEPipeline":
        """Load a local folder, without its text encoder, and the embedding of the empty prompt.

        Raises:
            ModelError: there is neither an embedding nor a text encoder to compute it with.
        """
        prompts.check_prompts(Path(folder), [""])
        without_text = {"text_encoder": None, "tokenizer": None, "use_safetensors": True, "local_files_only": True}
        pipe = super().from_pretrained(folder, **(without_text | kwargs))
        length = pipe.transformer.config.max_text_seq_length
        pipe.prompt_embedding = prompts.prompt_embeddings(Path(folder), [""], length)[""]
        return pipe

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the networks, the configuration and the embedding of the empty prompt."""
        super().save_pretrained(save_directory, **kwargs)
        if self.prompt_embedding is not None:
            prompts.write_embedding(Path(save_directory), "", self.prompt_embedding)

    @property
    def grid(self) -> Grid:
        """The sizes that `restore` takes; CogVideoX: multiples of 16 pixels, 8k+1 frames."""
        multiple = codec.spatial_factor(self.vae) * self.transformer.config.patch_size
        bounds = {name: self.config[name] for name in ("max_pixels", "tile_overlap")}
        return Grid(multiple=multiple, step=codec.frame_step(self.vae), **bounds)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (B, 3, F, H, W) in [-1, 1] to scaled latents (B, C, f, h, w)."""
        return codec.encode(self.vae, x, posterior=self.config.posterior, generator=generator, memory=self.vae_memory)

    def denoise(
        self,
        z: Tensor,
        prompt_embedding: Tensor | None = None,
        timestep: int | None = None,
        noise_step: int | None = None,
        generator: torch.Generator | None = None,
        *,
        padded: bool = False,
        staggered: bool = False,
        transformer: nn.Module | None = None,
    ) -> Tensor:
        """The one step: z_lq to z_sr, both (B, C, f, h, w), scaled; z_sr is float32.

        Args:
            z: z_lq, in the dtype the networks run in.
            prompt_embedding: (1, L, D); None: the empty prompt.
            timestep, noise_step: None: the pipeline's own.
            generator: of the noise, where there is any.
            padded: keep the latents that are repeated for the temporal patch; the stage-1 loss counts them.
            staggered: repeat the last latent, too, so that temporal patches begin at other frames.
            transformer: called instead of the pipeline's own: the same in a wrapper that synchronises gradients.
        """
        timestep = self.config.timestep if timestep is None else timestep
        noise_step = self.config.noise_step if noise_step is None else noise_step
        prompt_embedding = self.prompt_embedding if prompt_embedding is None else prompt_embedding
        if noise_step:
            noise = torch.randn(z.shape, generator=generator, dtype=torch.float32).to(z.device)
            z = one_step.add_noise(z, noise, self.alpha_bar(noise_step))
        network = self.transformer if transformer is None else transformer
        ways = {"padded": padded, "staggered": staggered}
        v = denoiser.predict_v(network, z, prompt_embedding, torch.tensor(timestep), **ways)
        z_t = denoiser.repeat_ends(z, *denoiser.copies(self.transformer, z.shape[2], staggered)) if padded else z
        rounding = torch.float32 if self.config.coefficients == "float32" else z.dtype
        return one_step.clean_from_v(z_t, v, self.alpha_bar(timestep), rounding)

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, C, f, h, w) to pixels (B, 3, F, H, W), about [-1, 1], not clamped."""
        return codec.decode(self.vae, z, memory=self.vae_memory)

    def alpha_bar(self, timestep: int) -> Tensor:
        """Cumulative alpha of the schedule at ``timestep``: scalar, float32."""
        steps = len(self.scheduler.alphas_cumprod)
        if not 0 <= timestep < steps:
            raise UsageError(f"the timestep must be in [0, {steps}), got {timestep}")
        return self.scheduler.alphas_cumprod[timestep].float()

    @torch.no_grad()
    def restore(
        self,
        x_lq: Tensor,
        prompt_embedding: Tensor | None = None,
        timestep: int | None = None,
        generator: torch.Generator | None = None,
        noise_step: int | None = None,
        odd: bool = False,
    ) -> Tensor:
        """Restore one window of one tile. Deterministic by default.

        Args:
            x_lq: (B, 3, F, H, W) in [-1, 1], already at output size; sizes as `grid` says.
            prompt_embedding: (1, L, D); None: the empty prompt.
            timestep, noise_step: None: the pipeline's own.
            generator: on the CPU; of posterior samples and noise, where there are any.
            odd: of tiles every second, down and across; a model with ``stagger_frames`` repeats its last latent, too,
                one with ``mirror_tiles`` sees it mirrored.

        Returns:
            x_sr: (B, 3, F, H, W) float32 in [0, 1], on the device of the pipeline.
        """
        self._check_size(x_lq)
        mirrored = odd and self.config.mirror_tiles
        x_lq = x_lq.flip(-1) if mirrored else x_lq
        z_lq = self.encode(x_lq.to(self._execution_device), generator)
        try:
            staggered = odd and self.config.stagger_frames
            z_sr = self.denoise(z_lq, prompt_embedding, timestep, noise_step, generator, staggered=staggered)
        finally:
            self._make_room()
        x_sr = (self.decode(z_sr).float() * 0.5 + 0.5).clamp(0, 1)
        return x_sr.flip(-1) if mirrored else x_sr

    def _make_room(self) -> None:
        """Send offloaded networks back to host memory before the decoder runs; the VAE stays where it is."""
        for hook in getattr(self, "_all_hooks", []):
            hook.offload()

    def _check_size(self, x_lq: Tensor) -> None:
        grid, (frames, height, width) = self.grid, x_lq.shape[-3:]
        if frames % grid.step != 1 or height % grid.multiple or width % grid.multiple:
            raise UsageError(
                f"a window must have {grid.step}k+1 frames and a height and width that are multiples of "
                f"{grid.multiple}, got {frames} frames of {width}x{height}; vsr.restore_frames cuts and pads any clip"
            )

    def __call__(
        self, frames: np.ndarray | list[Image.Image], scale: float | None = None, **settings: Any
    ) -> VideoOutput:
        """Restore a whole clip held in memory.

        Args:
            frames: (F, H, W, 3) uint8 or uint16, or PIL images; what comes out has the same type.
            scale: super-resolution factor; None: the pipeline's own.
            settings: further fields of `vsr.RestoreSettings`.
        """
        if not len(frames):
            raise UsageError("there are no frames to restore")
        given_pictures = isinstance(frames[0], Image.Image)
        arrays = [np.asarray(f.convert("RGB")) for f in frames] if given_pictures else frames
        dtype = arrays[0].dtype.type
        restored = list(restore_frames(self, arrays, RestoreSettings(scale=scale, **settings), dtype=dtype))
        if given_pictures:
            return VideoOutput(frames=[Image.fromarray(frame) for frame in restored])
        return VideoOutput(frames=np.stack(restored))
