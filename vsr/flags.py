"""What the flags of `inference_script.py` say, as settings."""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vsr.errors import UsageError
from vsr.report import fingerprint, hash_of
from vsr.settings import RestoreSettings
from vsr.video_io import OutputOptions

log = logging.getLogger(__name__)


def restore_settings(args: argparse.Namespace) -> RestoreSettings:
    """How frames are restored."""
    if args.chunk_len == 0:
        log.warning("--chunk_len 0: memory grows with the length of the clip")
    return RestoreSettings(
        scale=args.upscale,
        size=args.size,
        short_side=args.short_side,
        upscale_mode=args.upscale_mode,
        window=args.chunk_len,
        overlap=args.overlap_t,
        tile=tuple(args.tile_size_hw),
        tile_overlap=args.overlap_hw and tuple(args.overlap_hw),
        scene_cut=args.scene_cut,
        color_fix=args.color_fix,
        timestep=args.sr_noise_step,
        noise_step=args.noise_step,
        seed=args.seed,
    )


def output_options(args: argparse.Namespace) -> OutputOptions:
    """The format of the results."""
    return OutputOptions(
        pixel_format=args.save_format,
        png=args.png_save,
        crf=args.crf,
        codec=args.codec,
        fps=args.fps,
        audio=not args.no_audio,
    )


def identity_of(
    args: argparse.Namespace,
    settings: RestoreSettings,
    output: OutputOptions,
    model: Path,
    dtype: torch.dtype,
    lora: Path | None,
) -> dict[str, Any]:
    """Everything that decides how all results look, as JSON holds it."""
    parts = {**asdict(settings), **asdict(output), "model": fingerprint(model)}
    parts |= {"dtype": str(dtype), "vae_tiling": args.is_vae_st, "untagged": args.untagged}
    if lora:
        parts |= {"lora": hash_of(lora), "lora_scale": args.lora_scale}
    return json.loads(json.dumps(parts, default=str))


def read_prompts(path: Path | None) -> dict[str, str]:
    """{file name: prompt} from a JSON file."""
    if path is None:
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: expected a JSON file of the form {{file name: prompt}}, got {error}") from error
    if not isinstance(given, dict) or not all(isinstance(prompt, str) for prompt in given.values()):
        raise UsageError(f"{path}: expected a JSON object of the form {{file name: prompt}}")
    return given
