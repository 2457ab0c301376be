"""Several processes on one batch: each takes what is free, a file or a window of a long one, until all is settled."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vsr.fitting import Fitting
from vsr.jobs import Job
from vsr.restore import Pipeline, RestoreSettings, cut_clip
from vsr.restore_file import QUEUE, naming_less, pixels_of
from vsr.shared_file import SharedFile
from vsr.stages import prefetch
from vsr.video_io import VideoInfo

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SHARES = 4
"""A file is long when it is more than one part in so many of what each process gets on average."""

Facts = dict[str, Any]


def long_jobs(jobs: list[Job], window: int, processes: int) -> set[Job]:
    """The files whose windows are shared out, because whole they would keep one process busy when the others are done.

    Args:
        jobs: all of the batch, so that every process comes to the same answer.
        window: frames per window; a file of one window is never long, nor one of unknown length.
    """
    lengths = {job: job.info.likely_frame_count or 0 for job in jobs}
    costs = {job: lengths[job] * job.info.width * job.info.height for job in jobs}
    bound = sum(costs.values()) / (processes * SHARES)
    return {job for job in jobs if processes > 1 and 0 < window < lengths[job] and costs[job] > bound}


def restore_windows(
    info: VideoInfo,
    pipe: Pipeline,
    settings: RestoreSettings,
    prompt_embedding: Tensor | None,
    shared: SharedFile,
    on_frames: Callable[[int], None],
    fitting: Fitting | None = None,
) -> None:
    """Read a file once and restore those of its windows that nobody has restored or is restoring.

    ``fitting``: as in `vsr.restore_file.restore_video`.
    """
    number, fitting = -1, fitting or Fitting(pipe)
    with naming_less(info, pipe, settings), closing(prefetch(pixels_of(info), QUEUE)) as pixels:
        for number, (_, window) in enumerate(cut_clip(pixels, settings, pipe.grid)):
            with shared.claim_window(number) as mine:
                if mine:
                    shared.store(number, fitting.restore_window(settings, prompt_embedding, number, window.frames))
            on_frames(window.advance)
    shared.seen(number + 1)


def wait_for(files: dict[Job, SharedFile], learn: Callable[[Job, Facts], None]) -> None:
    """Until other processes have settled what this one has not the memory for."""
    left = dict(files)
    if left:
        log.info("waiting for other processes: %s", ", ".join(job.name for job in left))
    while left:
        for job in [job for job, shared in left.items() if shared.result]:
            learn(job, left.pop(job).result)
        time.sleep(POLL_SECONDS if left else 0)


@dataclass(kw_only=True)
class Together:
    """The files of a batch that are left, shared with other processes."""

    files: dict[Job, SharedFile]
    """What is left to do, in the order in which it is done."""
    long: set[Job]
    """Those of which windows are shared out."""
    attempt: Callable[[Job, Callable[[], Facts | None]], Facts]
    """Runs work on a file; returns ``facts`` of it, or ``error`` and ``exit_code``, as JSON holds them."""
    restore: Callable[..., Facts]
    """Restores a file whole, or joins its windows, which it is given as ``restored``."""
    restore_windows: Callable[[Job, SharedFile], None]
    """Restores those windows of a file that are free."""
    learn: Callable[[Job, Facts], None]
    """Told once what became of each file, whoever did it."""

    def run(self) -> None:
        """Work until every file is restored or has failed, here or elsewhere."""
        left, said = dict(self.files), ""
        while left:
            took = [self._take(job, shared) for job, shared in left.items()]
            for job, shared in list(left.items()):
                if result := shared.result:
                    self.learn(job, result)
                    del left[job]
            if left and not any(took):
                waiting = ", ".join(shared.describe() for shared in left.values())
                if waiting != said:
                    log.info("waiting for other processes: %s", waiting)
                said = waiting
                time.sleep(POLL_SECONDS)

    def _take(self, job: Job, shared: SharedFile) -> bool:
        """Do what is free of a file; whether there was anything."""
        if shared.result:
            return False
        if job in self.long or shared.has_windows:
            return self._take_windows(job, shared)
        return self._finish(job, shared, "whole")

    def _take_windows(self, job: Job, shared: SharedFile) -> bool:
        free = shared.has_free_windows
        if free:
            result = self.attempt(job, lambda: self.restore_windows(job, shared))
            if "error" in result:
                shared.settle(result, done=False)
                return True
        return (shared.is_complete and self._finish(job, shared, "join", restored=shared.load)) or free

    def _finish(self, job: Job, shared: SharedFile, what: str, **how: Any) -> bool:
        """Make the result, unless another process is at it."""
        with shared.claim(what) as mine:
            if mine:
                result = self.attempt(job, lambda: self.restore(job, **how))
                shared.settle(result, done="error" not in result)
        return mine
