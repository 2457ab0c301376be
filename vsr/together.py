"""Several processes on one batch: each takes what is free, a file or a window of a long one, until all is settled."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vsr.budget import MARGIN
from vsr.errors import EncoderError, InputError, UsageError
from vsr.fitting import Fitting
from vsr.jobs import Job
from vsr.restore import Pipeline, RestoreSettings, cut_clip
from vsr.restore_file import QUEUE, naming_less, pixels_of
from vsr.settings import Layout, make_layout
from vsr.shared_file import BYTES_PER_PIXEL, SharedFile
from vsr.shared_work import SharedWork
from vsr.stages import prefetch
from vsr.video_io import VideoInfo

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0
"""So long a process may take to start, or to start again, before what is left to it has failed."""
OF_THE_FILE = (InputError, UsageError, EncoderError)
"""Errors that every process would come to."""
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


def share_windows(files: dict[Job, SharedFile], long: set[Job], layouts: dict[Job, Layout], room: int) -> set[Job]:
    """The files to restore window by window: long ones, and those of which windows are left, if the disk holds them.

    Args:
        files: what is left to do.
        layouts: geometry of every file.
        room: free bytes where windows are kept.
    """
    taken = set()
    for job in [job for job, shared in files.items() if job in long or shared.has_windows]:
        pixels = math.prod(layouts[job].size) * (job.info.likely_frame_count or 0)
        needed = max(BYTES_PER_PIXEL * pixels - files[job].kept_bytes(), 0)
        if needed <= room:
            taken.add(job)
            room -= needed
            continue
        text = "%s: restored by one process; its windows would take %.1f GB, and %.1f GB are left on the disk"
        log.warning(text, job.name, needed / 1e9, room / 1e9)
    return taken


def agree_on_long(
    work: SharedWork, files: dict[Job, SharedFile], long: set[Job], layouts: dict[Job, Layout]
) -> set[Job]:
    """The same answer of `share_windows` for all processes, whatever the disk has room for when they come to it."""

    def choose() -> list[str]:
        room = int(MARGIN * shutil.disk_usage(work.folder).free)
        return [job.name for job in share_windows(files, long, layouts, room)]

    agreed = work.agree(choose)
    return {job for job in files if job.name in agreed}


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
    layout = make_layout(settings, pipe.grid, info.height, info.width, pipe.config.scale)
    with naming_less(info, pipe, settings), closing(prefetch(pixels_of(info), QUEUE)) as pixels:
        for number, (_, window) in enumerate(cut_clip(pixels, settings, pipe.grid)):
            with shared.claim_window(number) as mine:
                if mine:
                    x_sr = fitting.restore_window(settings, prompt_embedding, number, window.frames)
                    shared.store(number, x_sr, fitting.plan_of(layout).describe(), fitting.take_notes())
            on_frames(window.advance)
    shared.seen(number + 1)


@dataclass(kw_only=True)
class Together:
    """The files of a batch that are left, shared with other processes."""

    files: dict[Job, SharedFile]
    """What is left to do, in the order in which it is done."""
    long: set[Job]
    """Those of which windows are shared out."""
    attempt: Callable[[Job, Callable[[], Facts | None]], Facts]
    """Runs work on a file; returns ``facts`` of it, or ``error`` and ``exit_code``, as JSON holds them."""
    restore: Callable[[Job, SharedFile | None], Facts]
    """Restores a file whole, or joins its windows."""
    restore_windows: Callable[[Job, SharedFile], None]
    """Restores those windows of a file that are free."""
    learn: Callable[[Job, Facts], None]
    """Told once what became of each file, whoever did it."""
    given_up: dict[Job, Facts]
    """Those that this process cannot do, and why: with that they have failed, if no other process comes to do them."""
    is_hopeless: Callable[[SharedFile], bool]
    """No other process at work may do a file."""

    def run(self) -> None:
        """Work until every file is restored or has failed, here or elsewhere."""
        left, said, since = dict(self.files), "", time.monotonic()
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
            if any(took) or not all(job in self.given_up and self.is_hopeless(left[job]) for job in left):
                since = time.monotonic()
            elif time.monotonic() - since > GRACE_SECONDS:
                for job, shared in left.items():
                    shared.settle(self.given_up[job])

    def _take(self, job: Job, shared: SharedFile) -> bool:
        """Do what is free of a file; whether there was anything."""
        if shared.result or job in self.given_up:
            return False
        if job in self.long:
            return self._take_windows(job, shared)
        return self._finish(job, shared, "whole")

    def _take_windows(self, job: Job, shared: SharedFile) -> bool:
        free = shared.has_free_windows
        if free:
            result = self.attempt(job, lambda: self.restore_windows(job, shared))
            if "error" in result:
                self._settle(job, shared, result)
                return True
        return (shared.is_complete and self._finish(job, shared, "join", shared)) or free

    def _finish(self, job: Job, shared: SharedFile, what: str, windows: SharedFile | None = None) -> bool:
        """Make the result, unless another process is at it."""
        with shared.claim(what) as mine:
            if mine:
                self._settle(job, shared, self.attempt(job, lambda: self.restore(job, windows)))
        return mine

    def _settle(self, job: Job, shared: SharedFile, result: Facts) -> None:
        """Say what became of a file. What may be the fault of this process or its device is left to the others."""
        of_the_file = result.get("exit_code") in (None, *(kind.exit_code for kind in OF_THE_FILE))
        if of_the_file or shared.refuse():
            shared.settle(result)
            return
        self.given_up[job] = result
        log.warning("%s: left to the other processes", job.name)
