"""Restoring a file: reader, `restore_frames` and writer as stages, and a report of what was done."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsr.errors import OutOfMemoryError
from vsr.restore import Pipeline, restore_frames
from vsr.settings import RestoreSettings, make_layout
from vsr.stages import WriteBehind, prefetch
from vsr.video_io import OutputOptions, VideoInfo, open_writer, probe, read_frames

if sys.platform == "linux":
    import resource

QUEUE = 8
"""Frames that wait between two stages at most."""


def restore_video(
    source: str | Path | VideoInfo,
    target: str | Path,
    pipe: Pipeline,
    settings: RestoreSettings | None = None,
    *,
    output: OutputOptions | None = None,
    prompt_embedding: Tensor | None = None,
    on_frames: Callable[[int], None] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Restore a video file, a folder of frames or an image, as a stream: memory does not depend on the length.

    Args:
        source: a path, or what `vsr.video_io.probe` said of it.
        target: the result; appears under this name only when it is complete.
        pipe: from `vsr.load_pipeline`.
        output: format of the result.
        prompt_embedding: (1, L, D); None: the empty prompt.
        on_frames: called with the number of frames that became final, again and again.
        fields: of the settings, if these are not given whole: scale=4, size=(1920, 1080), short_side=1080, and so on.

    Returns:
        A report that JSON can hold: source, output, frames, sizes, windows, seconds per stage, peak memory, notes.

    Raises:
        InputError, EncoderError, OutOfMemoryError, UsageError: see `vsr.errors`.
    """
    info = source if isinstance(source, VideoInfo) else probe(source)
    settings, target, clock = settings or RestoreSettings(**fields), Path(target), _Clock()
    layout = make_layout(settings, pipe.grid, info.height, info.width, pipe.config.scale)
    height, width = layout.size
    windows, timestamps = [], deque()

    def note_window(num_frames: int) -> None:
        windows.append(num_frames)
        if on_frames:
            on_frames(num_frames)

    _reset_peak_memory()
    with (
        open_writer(target, info, width=width, height=height, options=output or OutputOptions()) as writer,
        closing(prefetch(_pixels(info, timestamps), QUEUE)) as pixels,
        WriteBehind(writer.write, QUEUE) as write,
    ):
        restored = restore_frames(
            pipe,
            clock.iterate("read", pixels),
            settings,
            prompt_embedding=prompt_embedding,
            dtype=writer.dtype,
            on_window=note_window,
        )
        for frame in _naming_a_remedy(restored, layout.tile, settings.window):
            with clock.of("write"):
                write(frame, timestamps.popleft())
    return {
        "source": str(info.path),
        "output": str(target),
        "frames": sum(windows),
        "source_size": [info.width, info.height],
        "output_size": [width, height],
        "windows": len(windows),
        "tile_size": [layout.tile[1], layout.tile[0]],
        "seconds": clock.summary(),
        "peak_memory_gb": _peak_memory(),
        "notes": [*info.warnings, *writer.notes],
    }


def _pixels(info: VideoInfo, timestamps: deque[int]) -> Iterator[np.ndarray]:
    """The frames of a source. Their timestamps go to ``timestamps``: frame i of the result is frame i of the source."""
    for frame in read_frames(info):
        timestamps.append(frame.pts)
        yield frame.pixels


def _naming_a_remedy(restored: Iterator[np.ndarray], tile: tuple[int, int], window: int) -> Iterator[np.ndarray]:
    try:
        yield from restored
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"out of memory on a window of {window or 'all'} frames and a tile of {tile[1]}x{tile[0]} pixels; use a "
            f"smaller --tile_size_hw, a smaller --chunk_len, --is_vae_st or --is_cpu_offload ({error})"
        ) from error


class _Clock:
    """Seconds that the driving thread waits for the reader and the writer; what is left is spent restoring."""

    def __init__(self) -> None:
        self._start, self._waited = time.perf_counter(), {"read": 0.0, "write": 0.0}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waited[stage] += time.perf_counter() - start

    def iterate(self, stage: str, source: Iterator) -> Iterator:
        while True:
            with self.of(stage):
                item = next(source, None)
            if item is None:
                return
            yield item

    def summary(self) -> dict[str, float]:
        total = time.perf_counter() - self._start
        waited = {f"waiting_to_{stage}": round(seconds, 3) for stage, seconds in self._waited.items()}
        return {"total": round(total, 3), "restoring": round(total - sum(self._waited.values()), 3), **waited}


def _reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> dict[str, float]:
    """Gigabytes: of this file on a CUDA device, of the process so far on the host (where the system tells)."""
    peak = {}
    if torch.cuda.is_available():
        peak["device"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    if sys.platform == "linux":
        peak["host"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
    return peak
