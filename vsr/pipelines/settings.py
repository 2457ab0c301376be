"""What training and inference must share about a model. Saved with its weights in ``model_index.json``."""

import math
from dataclasses import dataclass

from vsr.frames import UPSCALE_MODES


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """The settings of `DOVEPipeline`. A published `CogVideoXPipeline` has none: it gets these defaults."""

    scale: float = 4.0
    """Super-resolution factor the model was trained for."""
    upscale_mode: str = "bilinear"
    """Interpolation of the input to the output size."""
    timestep: int = 399
    """t at which the low-quality latent counts as noisy."""
    noise_step: int = 0
    """t of noise added to it first; 0: none."""
    posterior: str = "mode"
    """"mode" or "sample" of the VAE's posterior."""
    coefficients: str = "model"
    """"model" rounds sqrt(abar) and sqrt(1 - abar) to the dtype of the networks, as the published DOVE was trained;
    "float32" is exact."""
    max_pixels: int | None = None
    """Largest output frame that is restored whole; larger ones are cut into tiles. For models that were trained on
    small crops. None: no bound."""
    tile_overlap: int = 32
    """Pixels that neighbouring tiles share at least."""
    stagger_frames: bool = False
    """In every second tile the temporal patches begin at other frames, by copies behind the last latent instead of in
    front of the first: what the network does to the ends of a patch then fades where tiles overlap. The published
    CogVideoX and DOVE know copies in front only."""
    mirror_tiles: bool = False
    """Every second tile is restored mirrored, left to right: its errors are other ones, and partly cancel where tiles
    overlap (the self-ensemble of EDSR, arXiv:1707.02921, without a pixel more to compute)."""

    def __post_init__(self) -> None:
        self._check_choice("upscale_mode", UPSCALE_MODES)
        self._check_choice("posterior", ("mode", "sample"))
        self._check_choice("coefficients", ("model", "float32"))
        if self.max_pixels is not None and (not isinstance(self.max_pixels, int) or self.max_pixels < 1):
            raise ValueError(f"max_pixels must be a whole number above 0, or null, got {self.max_pixels!r}")
        for name in ("timestep", "noise_step", "tile_overlap"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, got {getattr(self, name)!r}")
        for name in ("stagger_frames", "mirror_tiles"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if not isinstance(self.scale, int | float) or not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a number above 0, got {self.scale!r}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")


DEFAULTS = PipelineSettings()
