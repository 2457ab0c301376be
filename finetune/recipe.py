"""Recipes: one YAML file describes one run, completely. Dotted overrides change single fields of it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.data.config import DataConfig
from finetune.typed_yaml import dump_yaml, read_yaml
from vsr.errors import UsageError

FRAME_STEP = 8
"""Frames per batch of latents of the CogVideoX VAE; the model itself is asked again when it is loaded."""
SECTIONS = (("dove_latent", "latent", False), ("dove_pixel", "loss", True), ("vae", "vae", True))
"""Each method, the section of its own, and whether a recipe must have it."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adaptation instead of full fine-tuning."""

    rank: int = 128
    """Rank of the update."""
    alpha: int = 64
    """The update counts alpha / rank."""
    target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Linear layers that get one."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                raise UsageError(f"lora: {name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation."""

    steps: int
    """Updates of the student."""
    lr: float
    """Learning rate of AdamW."""
    batch_size: int
    """Samples per process and micro-batch."""
    accumulation: int = 1
    """Micro-batches per step."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up; linear and cosine end at 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    eps: float = 1.0e-8
    """Of AdamW."""
    weight_decay: float = 1.0e-4
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of the forward pass; trained weights are float32 in each case."""
    gradient_checkpointing: bool = True
    """Compute activations that gradients flow through twice instead of keeping them."""
    lora: LoraConfig | None = None
    """None: full fine-tuning."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is exported; None: no average."""
    seed: int = 42
    """Of data order, crops, degradations and LoRA initialisation."""
    log_every: int = 10
    """Steps between log entries."""
    checkpoint_every: int = 100
    """Steps between checkpoints; one more is written before each validation and at the end."""
    keep_checkpoints: int = 3
    """Older ones are deleted, after a new one is complete."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Where logs go besides log.jsonl and the terminal."""

    def __post_init__(self) -> None:
        least = {"steps": 0, "batch_size": 1, "accumulation": 1, "log_every": 1, "checkpoint_every": 1}
        for name, smallest in (least | {"keep_checkpoints": 1, "warmup_steps": 0, "seed": 0}).items():
            if getattr(self, name) < smallest:
                raise UsageError(f"{name}: expected at least {smallest}, got {getattr(self, name)}")
        for name in ("lr", "max_grad_norm", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay: expected 0 or a number above it, got {self.weight_decay}")
        if self.seed >= 2**32:
            raise UsageError(f"seed: expected a number below 2**32, got {self.seed}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas: expected two numbers from 0 to below 1, got {list(self.betas)}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"ema_decay: expected a number between 0 and 1, or null, got {self.ema_decay}")


def _check_weights(loss: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(loss, name) < math.inf:
            raise UsageError(f"{name}: expected 0 or a number above it, got {getattr(loss, name)}")


@dataclass(frozen=True, kw_only=True)
class LatentLossConfig:
    """The loss of stage 1."""

    loss: Literal["mse", "psnr"] = "mse"
    """mse: the paper's; psnr: its logarithm, clip by clip, so that hard clips do not outweigh the others."""
    frame_weight: float = 0.0
    """Of the same loss of the differences between adjacent latents; the paper has it in stage 2 only."""

    def __post_init__(self) -> None:
        _check_weights(self, "frame_weight")


@dataclass(frozen=True, kw_only=True)
class PixelLossConfig:
    """The loss of stage 2."""

    perceptual: Literal["dists", "lpips", "none"] = "dists"
    """DISTS and LPIPS need pyiqa and its weight files; none needs nothing."""
    perceptual_weight: float = 1.0
    """lambda_1."""
    frame_weight: float = 1.0
    """lambda_2."""
    temporal_decode: bool = False
    """Videos go through the VAE with temporal compression; data.frames is then 8k+1."""

    def __post_init__(self) -> None:
        _check_weights(self, "perceptual_weight", "frame_weight")


@dataclass(frozen=True, kw_only=True)
class VAELossConfig:
    """The loss of a VAE."""

    kl_weight: float = 1.0e-6
    """Weight of the KL divergence, beside 1 for the L1 distance of pixels."""

    def __post_init__(self) -> None:
        _check_weights(self, "kl_weight")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Settings that inference must share; they travel with the weights. None: those of init_from."""

    coefficients: Literal["float32", "model"] | None = None
    """Arithmetic of sqrt(abar), see DOVEPipeline."""
    timestep: int | None = None
    """Timestep of the one step."""

    def __post_init__(self) -> None:
        if self.timestep is not None and self.timestep < 0:
            raise UsageError(f"pipeline: timestep: expected 0 or more, got {self.timestep}")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Restoring a small folder during training, the way inference does it."""

    lq: Path
    """Folder of low-quality clips."""
    gt: Path
    """Folder of ground truth with the same stems."""
    every: int = 500
    """Steps between validations; one more at the end."""
    metrics: tuple[str, ...] = ("psnr", "ssim")
    """Names that eval_metrics.py knows."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"validation: every: expected at least 1, got {self.every}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run."""

    method: Literal["dove_latent", "dove_pixel", "vae"]
    """What is trained how: a file of finetune/methods."""
    init_from: Path
    """Model folder to start from."""
    output_dir: Path
    """Folder of the run: checkpoints, logs, the resolved recipe, the exported model."""
    resume: str | None = None
    """A checkpoint folder, or "latest": the newest one of output_dir, or a fresh start when there is none yet."""
    data: DataConfig
    train: TrainConfig
    latent: LatentLossConfig | None = None
    """For dove_latent; None: its defaults."""
    loss: PixelLossConfig | None = None
    """For dove_pixel."""
    vae: VAELossConfig | None = None
    """For vae."""
    pipeline: PipelineConfig = PipelineConfig()
    validation: ValidationConfig | None = None

    def __post_init__(self) -> None:
        self._check_sections()
        if self.method != "dove_latent" and self.data.latent_cache:
            raise UsageError(f"data: latent_cache: {self.method} trains on pixels, not on latents; remove it")
        if self.method == "dove_latent" and self.data.image_ratio:
            raise UsageError("data: image_ratio: dove_latent trains on videos only; write 0.0")
        through_time = self.method == "dove_latent" or (self.loss is not None and self.loss.temporal_decode)
        if through_time:
            self.check_frames(FRAME_STEP)

    def _check_sections(self) -> None:
        """Each method has its own section, and no other."""
        for method, section, needed in SECTIONS:
            given = getattr(self, section) is not None
            if given and self.method != method:
                raise UsageError(
                    f"{section}: {self.method} has no such settings; remove the section, or use method: {method}"
                )
            if needed and not given and self.method == method:
                raise UsageError(f"missing {section}; {method} needs the section, see the recipes in configs/")
        if self.method == "vae" and self.train.lora:
            raise UsageError("train: lora: vae trains all weights; remove it")
        if self.method == "vae" and self.validation:
            raise UsageError("validation: restores clips, for which vae trains no transformer; remove the section")

    def check_frames(self, step: int) -> None:
        """The VAE keeps frames in place only for ``step * k + 1`` of them."""
        frames = self.data.frames
        if frames % step != 1:
            below = max((frames - 1) // step, 0) * step + 1
            raise UsageError(
                f"data: frames: expected {step}k+1 frames, since the video VAE shifts others in time, got {frames}; "
                f"write {below} or {below + step}"
            )


def load_recipe(path: Path, overrides: list[str]) -> Recipe:
    """Read a recipe and apply overrides of the form ``train.lr=1.0e-6``.

    Raises:
        UsageError: names file, field and what was expected.
    """
    return read_yaml(path, Recipe, overrides)


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every field, defaults included; `load_recipe` reads it back."""
    return dump_yaml(recipe)
