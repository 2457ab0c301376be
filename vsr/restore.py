"""Restoring a stream of frames: the only loop over windows. It is handed a pipeline and imports none."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
from torch import Tensor

from vsr import blending, frames, scenes, windows
from vsr.errors import InputError
from vsr.fitting import Fitting
from vsr.restore_window import Pipeline
from vsr.settings import RestoreSettings

__all__ = ["Pipeline", "RestoreSettings", "cut_clip", "restore_frames"]


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
        restored: gives a window, by its number and its frames, (F, 3, H, W) float32 in [0, 1]; None: each is restored
            here, with a smaller plan (`vsr.plans`) from then on when memory runs out.
    """
    settings = settings or RestoreSettings()
    restored = restored or partial(Fitting(pipe).restore_window, settings, prompt_embedding)
    cut = enumerate(cut_clip(source, settings, pipe.grid))
    for _, scene in groupby(cut, key=lambda piece: piece[1][0]):
        numbered = ((number, window) for number, (_, window) in scene)
        for final in blending.join_windows(numbered, restored):
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


def _of_one_shape(clip: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for number, frame in enumerate(clip):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, np.uint16):
            raise InputError(f"frame {number}: expected (H, W, 3) in uint8 or uint16, got {frame.shape} {frame.dtype}")
        shape = shape or frame.shape
        if frame.shape != shape:
            raise InputError(f"frame {number} has the shape {frame.shape}, the first one {shape}")
        yield frame
