"""Restoring a stream of frames: the only loop over windows and tiles. It is handed a pipeline and imports none."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, product
from operator import itemgetter
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vsr import blending, frames, scenes, windows
from vsr.color_fix import wavelet_color_fix
from vsr.errors import InputError
from vsr.settings import Layout, RestoreSettings, make_layout

__all__ = ["Pipeline", "RestoreSettings", "cut_clip", "restore_frames", "restore_window"]


class Pipeline(Protocol):
    """What `restore_frames` needs of a pipeline."""

    config: object
    grid: windows.Grid

    def restore(self, x_lq: Tensor, prompt_embedding=None, timestep=None, generator=None, noise_step=None) -> Tensor:
        """One window of one tile: (1, 3, F, H, W) in [-1, 1] to the same shape in [0, 1]."""


def restore_frames(
    pipe: Pipeline,
    source: Iterable[np.ndarray],
    settings: RestoreSettings | None = None,
    *,
    prompt_embedding: Tensor | None = None,
    dtype: type = np.uint8,
    on_window: Callable[[int], None] | None = None,
    restored: Callable[[int, list[np.ndarray]], Tensor] | None = None,
) -> Iterator[np.ndarray]:
    """Restore a clip of any length as a stream: one frame out for each frame in, in order.

    Memory does not grow with the length of the clip (unless ``settings.window`` is 0).

    Args:
        pipe: a pipeline, or anything with its `restore`, `grid` and `config`.
        source: frames (H, W, 3), uint8 or uint16, all of one shape.
        settings: None: the defaults.
        prompt_embedding: (1, L, D); None: the empty prompt.
        dtype: of the frames that come out, np.uint8 or np.uint16; rounded once.
        on_window: called after each window with the number of frames that became final.
        restored: gives a window, by its number and its frames, as `restore_window` returns it; None: `restore_window`.
    """
    settings = settings or RestoreSettings()
    restored = restored or partial(restore_window, pipe, settings, prompt_embedding)
    cut = enumerate(cut_clip(source, settings, pipe.grid))
    for _, scene in groupby(cut, key=lambda piece: piece[1][0]):
        numbered = ((number, window) for number, (_, window) in scene)
        for final in _join(numbered, restored):
            yield from (frames.to_frame(x, dtype) for x in final)
            if on_window:
                on_window(len(final))


def cut_clip(
    source: Iterable[np.ndarray], settings: RestoreSettings, grid: windows.Grid
) -> Iterator[tuple[int, windows.Window[np.ndarray]]]:
    """(number of the scene, window) for every window of a clip, in order, as a stream of two windows of frames.

    Args:
        source: frames (H, W, 3), uint8 or uint16, all of one shape.
        grid: of the pipeline.
    """
    overlap = settings.checked_overlap(grid)
    clip = _of_one_shape(source)
    numbered = scenes.number_scenes(clip) if settings.scene_cut == "auto" else ((0, frame) for frame in clip)
    for scene, shot in groupby(numbered, key=itemgetter(0)):
        for window in windows.cut_scene(map(itemgetter(1), shot), settings.window, overlap, grid.step):
            yield scene, window


def _join(
    cut: Iterable[tuple[int, windows.Window[np.ndarray]]], restored: Callable[[int, list[np.ndarray]], Tensor]
) -> Iterator[Tensor]:
    """Blend the windows of a scene, in order; yield after each the (F, 3, H, W) that no later window touches."""
    tail = torch.empty(0)
    for number, window in cut:
        x_sr = restored(number, window.frames)
        if len(tail):
            shared = x_sr[: len(tail)]  # contiguous: the last bit of a fade hangs on the layout in memory
            shared.copy_(blending.fade_in_(shared.contiguous(), tail))
        yield x_sr[: window.advance]
        rest = x_sr[window.advance :]
        # one buffer for all windows: a new one for each would leave holes in the heap, and memory would seem to grow
        tail = tail.copy_(rest) if tail.shape == rest.shape else rest.clone(memory_format=torch.contiguous_format)


def _of_one_shape(clip: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for number, frame in enumerate(clip):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, np.uint16):
            raise InputError(f"frame {number}: expected (H, W, 3) in uint8 or uint16, got {frame.shape} {frame.dtype}")
        shape = shape or frame.shape
        if frame.shape != shape:
            raise InputError(f"frame {number} has the shape {frame.shape}, the first one {shape}")
        yield frame


def restore_window(
    pipe: Pipeline, settings: RestoreSettings, prompt_embedding: Tensor | None, number: int, clip: list[np.ndarray]
) -> Tensor:
    """One window of a clip: all its tiles, blended. The result hangs on nothing that was restored before.

    Args:
        number: of the window in the clip; whatever is random is drawn from it and the seed.
        clip: the frames of the window, (H, W, 3), uint8 or uint16.

    Returns:
        x_sr: (F, 3, H, W) of the output size, float32 in [0, 1], on the CPU.
    """
    layout = make_layout(settings, pipe.grid, *clip[0].shape[:2], pipe.config.scale)
    x_lq = frames.to_lq(clip, layout.size, layout.padded, settings.upscale_mode or pipe.config.upscale_mode)
    x_sr, key = torch.zeros_like(x_lq), (settings.seed, number)
    for tile, (place, weights) in enumerate(_tiles(layout)):
        generator = _generator(*key, tile)
        restored = pipe.restore(x_lq[place], prompt_embedding, settings.timestep, generator, settings.noise_step)
        x_sr[place].addcmul_(restored.cpu().float(), weights)
    if settings.color_fix == "wavelet":
        x_sr = wavelet_color_fix(x_sr, x_lq * 0.5 + 0.5)
    return x_sr[0, :, :, : layout.size[0], : layout.size[1]].transpose(0, 1)


def _tiles(layout: Layout) -> Iterator[tuple[tuple, Tensor]]:
    """The place of every tile, as an index of the last two axes, and its (h, w) weights."""
    (tile_h, tile_w), (height, width) = layout.tile, layout.padded
    downs = blending.tile_weights(height, tile_h, layout.rows)
    acrosses = blending.tile_weights(width, tile_w, layout.cols)
    for (top, down), (left, across) in product(
        zip(layout.rows, downs, strict=True), zip(layout.cols, acrosses, strict=True)
    ):
        yield (..., slice(top, top + tile_h), slice(left, left + tile_w)), torch.outer(down, across)


def _generator(*key: int) -> torch.Generator:
    """Random numbers that depend on the seed, the window and the tile, and on nothing that ran before."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state % 2**63))
