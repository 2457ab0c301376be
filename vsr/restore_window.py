"""Restoring one window of a clip: the only loop over tiles. It is handed a pipeline and imports none."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vsr import blending, frames, windows
from vsr.color_fix import wavelet_color_fix
from vsr.errors import VSRError
from vsr.plans import Plan
from vsr.settings import Layout, RestoreSettings, make_layout

AS_ASKED = Plan()
OnTile = Callable[[int, int], None]
"""Told how many tiles are done, and of how many: of a window, or of a part of one where the plan cuts it."""


class Pipeline(Protocol):
    """What `restore_frames` needs of a pipeline."""

    config: object
    grid: windows.Grid

    def restore(
        self, x_lq: Tensor, prompt_embedding=None, timestep=None, generator=None, noise_step=None, odd=False
    ) -> Tensor:
        """One window of one tile: (1, 3, F, H, W) in [-1, 1] to the same shape in [0, 1]."""


def restore_window(
    pipe: Pipeline,
    settings: RestoreSettings,
    prompt_embedding: Tensor | None,
    number: int,
    clip: list[np.ndarray],
    plan: Plan = AS_ASKED,
    on_tile: OnTile | None = None,
) -> Tensor:
    """One window of a clip: all its tiles, blended. The result hangs on nothing that was restored before.

    Args:
        number: of the window in the clip; whatever is random is drawn from it and the seed.
        clip: the frames of the window, (H, W, 3), uint8 or uint16.
        plan: its window and tile; the rest of it is how the pipeline is set.
        on_tile: called after each tile.

    Returns:
        x_sr: (F, 3, H, W) of the output size, float32 in [0, 1], on the CPU.
    """
    if plan.tile:
        settings = replace(settings, tile=plan.tile)
    if not plan.window or plan.window >= len(clip):
        return _restore(pipe, settings, prompt_embedding, (number,), clip, on_tile)
    shorter = replace(settings, window=plan.window, overlap=None)
    overlap = shorter.checked_overlap(pipe.grid)

    def restored(part: int, clip: list[np.ndarray]) -> Tensor:
        return _restore(pipe, shorter, prompt_embedding, (number, part), clip, on_tile)

    parts = enumerate(windows.cut_scene(clip, plan.window, overlap, pipe.grid.step))
    return torch.cat(list(blending.join_windows(parts, restored)))


def _restore(
    pipe: Pipeline,
    settings: RestoreSettings,
    prompt_embedding: Tensor | None,
    numbers: tuple[int, ...],
    clip: list[np.ndarray],
    on_tile: OnTile | None,
) -> Tensor:
    layout = make_layout(settings, pipe.grid, *clip[0].shape[:2], pipe.config.scale)
    x_lq = frames.to_lq(clip, layout.size, layout.padded, settings.upscale_mode or pipe.config.upscale_mode)
    x_sr, key = torch.zeros_like(x_lq), (settings.seed, *numbers)
    for tile, (place, weights) in enumerate(_tiles(layout)):
        generator, odd = _generator(*key, tile), sum(divmod(tile, len(layout.cols))) % 2 == 1
        restored = pipe.restore(x_lq[place], prompt_embedding, settings.timestep, generator, settings.noise_step, odd)
        x_sr[place].addcmul_(_finite(restored.cpu().float()), weights)
        if on_tile:
            on_tile(tile + 1, len(layout.rows) * len(layout.cols))
    if settings.color_fix == "wavelet":
        x_sr = wavelet_color_fix(x_sr, x_lq * 0.5 + 0.5)
    return x_sr[0, :, :, : layout.size[0], : layout.size[1]].transpose(0, 1)


def _finite(restored: Tensor) -> Tensor:
    """The same, or an error: what is not a number would be written as black."""
    if not restored.isfinite().all():
        raise VSRError(
            "the model's result has values that are not numbers: it overflows in this precision, or its weights are "
            "damaged; try --dtype bfloat16 or --dtype float32"
        )
    return restored


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
