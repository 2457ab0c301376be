"""Pairs of low quality and ground truth, made on the fly. A sample depends on its number, never on who asks for it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune.data.clips import open_source, read_still
from finetune.data.config import DataConfig
from finetune.data.degradation import DegradationConfig, apply_plan, load_degradation, sample_plan
from finetune.data.keys import Kind, Purpose, keyed_generator
from finetune.data.sources import Source, load_sources
from finetune.data.threads import one_torch_thread
from vsr.errors import InputError
from vsr.frames import to_lq

CONTEXT_AREA = 1.5
"""The area that is degraded is that many times as high and wide as the crop, so that crops have no border of their own.

Source: DOVE's data set code, as CONTEXT_FRAMES."""
CONTEXT_FRAMES = 10
"""Frames that are degraded beside those of the crop, so that crops do not all begin with a key frame of the codec."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of source."""

    sources: list[Source]
    degradation: DegradationConfig
    area: DegradationConfig | None = None
    """The milder one of some samples."""


class PairDataset(torch.utils.data.Dataset):
    """Samples by key (kind, n), n = 0, 1, 2, ... without end; each epoch is a permutation of the files of its kind."""

    def __init__(self, config: DataConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._kinds: dict[Kind, _Kind] = {}
        if config.image_ratio < 1:
            self._kinds["video"] = _load(config.videos, "video", config.degradation, mixed=config.area_share > 0)
        if config.image_ratio > 0:
            self._kinds["image"] = _load(config.images, "image", config.image_degradation)

    def __getitem__(self, key: tuple[Kind, int]) -> dict[str, Tensor | str]:
        """One pair.

        Returns:
            x_gt: (3, F, H, W), float32, in [-1, 1]; F = 1 for images.
            x_lq: the same shape and range: degraded to H / scale x W / scale, then interpolated back.
            kind: "video" or "image".
        """
        kind, n = key
        rng = keyed_generator(Purpose.SAMPLE, self._seed, kind, n)
        frames = self._read(self.source_of(kind, n), kind, rng)
        degradation = self._degradation(kind, rng)
        gt, lq = self._pair(frames, degradation, 1 if kind == "image" else self._config.frames, rng)
        size = (self._config.height, self._config.width)
        with one_torch_thread():
            x_gt, x_lq = (to_lq(list(clip), size, size, self._config.upscale_mode)[0] for clip in (gt, lq))
        return {"x_lq": x_lq, "x_gt": x_gt, "kind": kind, "number": n}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of sample that there are."""
        return tuple(self._kinds)

    def num_files(self, kind: Kind) -> int:
        """Files of a kind, or clips of a manifest, each of which gives one sample per epoch."""
        return len(self._kinds[kind].sources)

    def source_of(self, kind: Kind, n: int) -> Source:
        """What sample n of a kind is cut from."""
        sources = self._kinds[kind].sources
        epoch, place = divmod(n, len(sources))
        return sources[_order(self._seed, kind, epoch, len(sources))[place]]

    def _read(self, source: Source, kind: Kind, rng: np.random.Generator) -> np.ndarray:
        """A random window with its context in time, cropped at random to the crop with its context in space."""
        still = kind == "image"
        frames = iter([read_still(source.path)]) if still else _random_window(source, self._config.frames, rng)
        first = next(frames)
        area = self._random_area(source.path, *first.shape[:2], rng)
        return np.stack([frame[area].copy() for frame in chain([first], frames)])

    def _random_area(self, path: Path, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns to degrade: the crop with context where the source has it."""
        config = self._config
        if height < config.height or width < config.width:
            raise InputError(
                f"{path}: is {width}x{height}, smaller than the crop of {config.width}x{config.height}; leave it out "
                f"with finetune.scripts.prepare_dataset --min_height {config.height} --min_width {config.width}"
            )
        rows = _random_part(height, _with_context(config.height, height, config.scale), rng)
        return rows, _random_part(width, _with_context(config.width, width, config.scale), rng)

    def _degradation(self, kind: Kind, rng: np.random.Generator) -> DegradationConfig:
        held = self._kinds[kind]
        return held.area if held.area and rng.random() < self._config.area_share else held.degradation

    def _pair(
        self, frames: np.ndarray, degradation: DegradationConfig, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Degrade all of it, then cut one random part out of both: (count, height, width, 3) and a scale-th of that."""
        scale = self._config.scale
        lq = apply_plan(frames, sample_plan(degradation, rng, *frames.shape[:3], scale=scale))
        window = _random_part(len(lq), count, rng)
        rows = _random_part(lq.shape[1], self._config.height // scale, rng)
        columns = _random_part(lq.shape[2], self._config.width // scale, rng)
        return frames[window, _times(rows, scale), _times(columns, scale)], lq[window, rows, columns]


def _load(path: Path, kind: Kind, degradation: str, *, mixed: bool = False) -> _Kind:
    area = load_degradation("area") if mixed else None
    return _Kind(sources=load_sources(Path(path), kind), degradation=load_degradation(degradation), area=area)


@lru_cache(maxsize=4)
def _order(seed: int, kind: Kind, epoch: int, count: int) -> np.ndarray:
    return keyed_generator(Purpose.ORDER, seed, kind, epoch).permutation(count)


def _random_window(source: Source, frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """``frames`` consecutive frames and up to CONTEXT_FRAMES more, from anywhere in the clip."""
    clip = open_source(source)
    if len(clip) < frames:
        raise InputError(
            f"{source.path}: has {len(clip)} frames, fewer than the {frames} of a sample; leave it out with "
            f"finetune.scripts.prepare_dataset --min_frames {frames}"
        )
    count = min(len(clip), frames + CONTEXT_FRAMES)
    return clip.frames(_random_part(len(clip), count, rng).start, count)


def _random_part(whole: int, part: int, rng: np.random.Generator) -> slice:
    start = int(rng.integers(whole - part + 1))
    return slice(start, start + part)


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _with_context(crop: int, whole: int, scale: int) -> int:
    """Pixels to degrade for ``crop`` pixels: a multiple of 16 and ``scale`` with context, or what the source has."""
    multiple = math.lcm(16, scale)
    wanted = -(-int(crop * CONTEXT_AREA) // multiple) * multiple
    return min(wanted, whole // scale * scale)
