"""What a training run reads and how it makes pairs of it."""

from dataclasses import dataclass
from pathlib import Path

from vsr.errors import UsageError
from vsr.frames import UPSCALE_MODES


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Ground truth, its crop and its degradation."""

    videos: Path | None = None
    """Ground-truth clips: a folder, searched recursively, a .txt list written by prepare_dataset, or a
    manifest.parquet written by curate, whose clips are cut and cropped while training."""
    images: Path | None = None
    """Ground-truth images: a folder or a list, as for ``videos``."""
    image_ratio: float = 0.0
    """Fraction of steps that see images only (phi in the DOVE paper); drawn once per step for all processes."""
    frames: int
    """Frames per clip; 8k+1 unless frames are encoded one by one."""
    height: int
    """Rows of the ground-truth crop; a multiple of 16."""
    width: int
    """Columns of the ground-truth crop; a multiple of 16."""
    scale: int = 4
    """Super-resolution factor: ground truth by low quality."""
    upscale_mode: str = "bilinear"
    """Interpolation of the low quality to the size of the ground truth, see `vsr.frames.UPSCALE_MODES`; it becomes the
    trained model's own. DOVE: bilinear."""
    degradation: str = "realbasicvsr"
    """Of videos: a preset of configs/degradation or the path of a YAML file."""
    area_share: float = 0.0
    """Fraction of videos that the preset ``area`` degrades instead: clips that are only small, so that the model learns
    to leave alone what is good."""
    image_degradation: str = "realesrgan"
    """Of images: the same."""
    latent_cache: Path | None = None
    """Stage 1 only: folder of latents that finetune.scripts.cache_latents has made of this recipe; read instead of
    decoding and degrading clips."""
    latent_crop: int | None = None
    """With ``latent_cache``: rows and columns, in pixels of the ground truth, of the part of a cached sample that
    training sees, another one each time; a multiple of 16. None: all of it."""
    latent_seed: int | None = None
    """With ``latent_cache``: of the order and the parts of cached samples, so that a second training on them sees them
    in another order. None: train.seed."""
    workers: int = 2
    """Processes that read and degrade; 0: the training process does it itself."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.image_ratio <= 1.0:
            raise UsageError(f"image_ratio: expected a fraction in [0, 1], got {self.image_ratio}")
        if not 0.0 <= self.area_share <= 1.0:
            raise UsageError(f"area_share: expected a fraction in [0, 1], got {self.area_share}")
        if self.image_ratio > 0 and self.images is None:
            raise UsageError(
                f"image_ratio is {self.image_ratio}, but images is not set; set images to a folder, or image_ratio: 0.0"
            )
        if self.image_ratio < 1 and self.videos is None:
            raise UsageError(
                f"image_ratio is {self.image_ratio}, but videos is not set; set videos to a folder or a list, or "
                "image_ratio: 1.0 to train on images only"
            )
        if self.upscale_mode not in UPSCALE_MODES:
            raise UsageError(f"upscale_mode: expected one of {', '.join(UPSCALE_MODES)}, got {self.upscale_mode!r}")
        for name, least in (("frames", 1), ("scale", 1), ("workers", 0), ("latent_seed", 0)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise UsageError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("height", "width"):
            self._check_side(name, getattr(self, name))
        if self.latent_seed is not None and self.latent_cache is None:
            raise UsageError("latent_seed: orders what latent_cache holds; set latent_cache, or leave it out")
        if self.latent_crop is not None:
            self._check_latent_crop(self.latent_crop)

    def _check_latent_crop(self, crop: int) -> None:
        self._check_side("latent_crop", crop)
        if self.latent_cache is None:
            raise UsageError("latent_crop: crops what latent_cache holds; set latent_cache, or height and width alone")
        if crop > min(self.height, self.width):
            raise UsageError(f"latent_crop: expected at most {self.width}x{self.height}, the sample, got {crop}")

    def _check_side(self, name: str, side: int) -> None:
        if side < 16 or side % 16:
            nearest = max(16, round(side / 16) * 16)
            raise UsageError(f"{name}: expected a multiple of 16 (VAE 8 x patch 2), got {side}; write {nearest}")
        if side % self.scale:
            raise UsageError(f"{name}: expected a multiple of scale ({self.scale}), got {side}")
