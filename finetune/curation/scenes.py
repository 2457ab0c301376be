"""Stage 2: decode every frame once, which finds damage, and cut where the scene changes.

PySceneDetect's detector is fed frame by frame and answers with numbers of frames; times come from the time stamps of
these frames, so that a variable frame rate moves no cut (its own readers count in average frames).
"""

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from finetune.curation.config import ScenesConfig
from finetune.curation.rows import Row, failed, failed_with, message_of, rejected
from finetune.curation.stage import Bench
from finetune.data.clips import open_clip, to_8_bits
from vsr.errors import InputError
from vsr.video_io import VideoInfo, probe, read_frames
from vsr.video_io.completeness import EndWatch
from vsr.video_io.media import open_media

STAGE = "scenes"
DETECTION_SIDE = 256
"""Longer side of the frames that the detector sees; PySceneDetect chooses about the same."""
NOMINAL_RATE = 25.0
"""For the detector's own clock, which nothing here reads."""


class CutDetector:
    """Numbers of the frames that begin a new scene."""

    def __init__(self, config: ScenesConfig) -> None:
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.adaptive_threshold, min_scene_len=config.min_scene_frames
        )
        self._count = 0
        self.cuts: list[int] = []

    def add(self, pixels: np.ndarray) -> None:
        """Take the next frame, (H, W, 3) uint8 RGB."""
        factor = DETECTION_SIDE / max(pixels.shape[:2])
        if factor < 1:
            pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        time = FrameTimecode(self._count, NOMINAL_RATE)
        found = self._detector.process_frame(time, np.ascontiguousarray(pixels[..., ::-1]))
        self.cuts += [cut.frame_num for cut in found]
        self._count += 1


def split(rows: list[Row], bench: Bench) -> list[Row]:
    """One row per scene of one file; short scenes are rejected."""
    (row,) = rows
    path, config = bench.root / row["path"], bench.config.scenes
    try:
        info = probe(path)
        times, cuts = _decode(info, config)
    except InputError as error:
        return [failed_with(row, STAGE, error, path=path, reason=_kind_of_damage(path))]
    if complaint := _index_complaint(path, len(times)):
        return [failed(row, STAGE, "index", complaint)]
    row = {**row, "n_frames": len(times)}
    ends = [*times, times[-1] + max(1, round(1 / (info.rate * info.time_base)))]
    spans = enumerate(scene_spans(len(times), cuts, config.trim))
    scenes = [{**row, **_place(i, span, ends, info.time_base)} for i, span in spans]
    return [_long_enough(scene, config) for scene in scenes]


def scene_spans(count: int, cuts: Sequence[int], trim: int) -> list[tuple[int, int]]:
    """First frame and frame after the last of each scene, ``trim`` frames shorter at each cut; at least one frame."""
    edges = [0, *cuts, count]
    spans = []
    for first, last in pairwise(edges):
        start = min(first + trim * (first > 0), last - 1)
        spans.append((start, max(last - trim * (last < count), start + 1)))
    return spans


def _decode(info: VideoInfo, config: ScenesConfig) -> tuple[list[int], list[int]]:
    """Time stamps of all frames, and the frames that begin a scene."""
    detector, times = CutDetector(config), []
    for frame in read_frames(info):
        times.append(frame.pts)
        if config.detect:
            detector.add(to_8_bits(frame.pixels))
    return times, detector.cuts


def _place(number: int, span: tuple[int, int], ends: Sequence[int], time_base: Fraction) -> Row:
    """Where a scene is; ``ends`` has one time more than the file has frames."""
    (start, end), unit = span, float(time_base)
    stamps = {"start_pts": ends[start], "end_pts": ends[end]}
    seconds = {"start_s": ends[start] * unit, "end_s": ends[end] * unit}
    return {"scene_idx": number, "start_frame": start, "end_frame": end, **stamps, **seconds}


def _long_enough(scene: Row, config: ScenesConfig) -> Row:
    count = scene["end_frame"] - scene["start_frame"]
    if count >= config.min_frames:
        return scene
    return rejected(scene, STAGE, "too_short", f"{count} frames, expected at least {config.min_frames}")


def _index_complaint(path: Path, count: int) -> str | None:
    """Training finds frames through the file's index; one that lists others would give it other frames."""
    try:
        listed = len(open_clip(path))
    except InputError as error:
        return message_of(error, path)
    return None if listed == count else f"its index lists {listed} frames, but it has {count}"


def _kind_of_damage(path: Path) -> str:
    """``truncated`` if the packets end before the header says so, else ``corrupt``."""
    try:
        info = probe(path)
        with open_media(path) as container:
            watch = EndWatch(info, container)
            with suppress(av.error.FFmpegError, OSError):
                for packet in container.demux():
                    watch.see(packet)
            return "truncated" if watch.complaint() else "corrupt"
    except InputError:
        return "corrupt"
