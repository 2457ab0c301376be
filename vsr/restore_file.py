"""Restoring a file: reader, `restore_frames` and writer as stages, and a report of what was done."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsr import memory
from vsr.errors import UsageError
from vsr.fitting import Fitting
from vsr.jobs import refuse_replacing_a_source
from vsr.plans import LESS
from vsr.restore import Pipeline, restore_frames
from vsr.settings import RestoreSettings, make_layout
from vsr.stages import WriteBehind, prefetch
from vsr.video_io import FrameWriter, OutputOptions, VideoInfo, open_writer, probe, read_frames

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
    restored: Callable[[int, list[np.ndarray]], Tensor] | None = None,
    fitting: Fitting | None = None,
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
        restored: where windows come from that are restored already, see `vsr.restore.restore_frames`.
        fitting: the pipeline with what is known of the memory it needs; None: that is found out when it runs out.
        fields: of the settings, if these are not given whole: scale=4, size=(1920, 1080), short_side=1080, and so on.

    Returns:
        A report that JSON can hold: source, output, frames, sizes, windows, plan, seconds, peak memory, notes.

    Raises:
        InputError, EncoderError, OutOfMemoryError, UsageError: see `vsr.errors`.
    """
    info = source if isinstance(source, VideoInfo) else probe(source)
    if settings is not None and fields:
        raise UsageError(f"give settings, or single fields of them ({', '.join(fields)}), not both")
    settings, target, clock = settings or RestoreSettings(**fields), Path(target), _Clock()
    refuse_replacing_a_source(target, [info.path.resolve()])
    layout = make_layout(settings, pipe.grid, info.height, info.width, pipe.config.scale)
    device, windows = torch.device(getattr(pipe, "device", "cpu")), []

    def note_window(num_frames: int) -> None:
        windows.append(num_frames)
        if on_frames:
            on_frames(num_frames)

    fitting = fitting or Fitting(pipe)
    restored = restored or partial(fitting.restore_window, settings, prompt_embedding)
    restore = partial(restore_frames, pipe, settings=settings, on_window=note_window, restored=restored)
    height, width = layout.size
    memory.reset_peak(device)
    with (
        naming_less(info, pipe, settings),
        open_writer(target, info, width=width, height=height, options=output or OutputOptions()) as writer,
    ):
        _pump(info, restore, writer, clock)
    return {
        "source": str(info.path),
        "output": str(target),
        "frames": sum(windows),
        "source_size": [info.width, info.height],
        "output_size": [width, height],
        "windows": len(windows),
        "tile_size": [layout.tile[1], layout.tile[0]],
        "plan": fitting.plan_of(layout).describe(),
        "seconds": clock.summary(),
        "peak_memory_gb": memory.peak_gigabytes(device),
        "notes": [*info.warnings, *writer.notes, *fitting.take_notes()],
    }


def naming_less(info: VideoInfo, pipe: Pipeline, settings: RestoreSettings) -> AbstractContextManager[None]:
    """Out of memory inside is told with the size of a window and with what needs less; all plans have been tried."""
    layout = make_layout(settings, pipe.grid, info.height, info.width, pipe.config.scale)
    what = f"a window of {settings.window or 'all'} frames in tiles of {layout.describe_tile()}, even cut smaller,"
    return memory.naming_memory(what, LESS)


def _pump(info: VideoInfo, restore: Callable[..., Iterator[np.ndarray]], writer: FrameWriter, clock: "_Clock") -> None:
    """Read, restore and write at the same time. Frame i of the result has the time stamp of frame i of the source."""
    timestamps: deque[int] = deque()
    with (
        closing(prefetch(pixels_of(info, timestamps.append), QUEUE)) as pixels,
        WriteBehind(writer.write, QUEUE) as write,
    ):
        for frame in restore(clock.iterate("read", pixels), dtype=writer.dtype):
            with clock.of("write"):
                write(frame, timestamps.popleft())


def pixels_of(info: VideoInfo, on_time: Callable[[int], None] | None = None) -> Iterator[np.ndarray]:
    """The pixels of a source; the time stamps go to ``on_time``, in the same order."""
    for frame in read_frames(info):
        if on_time:
            on_time(frame.pts)
        yield frame.pixels


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
