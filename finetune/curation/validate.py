"""Stage 1: what the header says. Nothing is decoded but the first frame."""

from pathlib import Path

import av

from finetune.curation.config import MetadataConfig
from finetune.curation.rows import Row, message_of, rejected
from finetune.curation.stage import Bench
from vsr.errors import InputError
from vsr.video_io import VideoInfo, probe
from vsr.video_io.media import open_media

STAGE = "validate"


def validate(rows: list[Row], bench: Bench) -> list[Row]:
    """Fill in what the header says of one file, and reject what cannot be used or is too small or short."""
    (row,) = rows
    path = bench.root / row["path"]
    if row["source_bytes"] == 0:
        return [rejected(row, STAGE, "zero_bytes")]
    try:
        info = probe(path)
    except InputError as error:
        return [rejected(row, STAGE, _reason(path), message_of(error, path))]
    row = {**row, **_facts(info)}
    complaint = _complaint(info, bench.config.metadata)
    return [rejected(row, STAGE, *complaint) if complaint else row]


def _reason(path: Path) -> str:
    """Why ``probe`` has refused a file: it cannot be opened, holds no picture, or is of a kind that is not read."""
    try:
        with open_media(path) as container:
            cover = av.stream.Disposition.attached_pic
            return "unsupported" if any(not s.disposition & cover for s in container.streams.video) else "no_video"
    except InputError:
        return "unreadable"


def _facts(info: VideoInfo) -> Row:
    return {
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fps_num": info.rate.numerator,
        "fps_den": info.rate.denominator,
        "n_frames": info.frame_count,
        "codec": info.codec,
        "pix_fmt": info.pixel_format,
        "colorspace": info.matrix,
        "color_range": "full" if info.full_range else "limited",
    }


def _complaint(info: VideoInfo, config: MetadataConfig) -> tuple[str, str] | None:
    if config.square_pixels and info.sample_aspect_ratio != 1:
        return "pixels_not_square", f"{info.sample_aspect_ratio}"
    if min(info.width, info.height) <= config.short_side_over:
        return "too_small", f"{info.width}x{info.height}, expected a short side over {config.short_side_over}"
    if info.frame_count is not None and info.frame_count <= config.frames_over:
        return "too_short", f"{info.frame_count} frames, expected over {config.frames_over}"
    return None
