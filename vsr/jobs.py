"""The files of a batch: found and looked into before the work, restored one by one; a bad file costs only itself."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsr.errors import SOME_FAILED, EncoderError, InputError, UsageError, VSRError
from vsr.report import Report
from vsr.video_io import OutputOptions, VideoInfo, output_path, probe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file to restore."""

    info: VideoInfo
    """The source."""
    target: Path
    """The result."""
    prompt: str = ""
    """Text for the model; the methods here use the empty one."""

    @property
    def stem(self) -> str:
        """Name of the source without its extension: what ground truth is found by."""
        return self.info.path.stem if self.info.kind != "frames" else self.info.path.name


@dataclass
class Outcome:
    """What became of the files of a batch, by name of the source."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, VSRError] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when all is well; the code of the failure when it was the only file; 7 when some of several failed."""
        if not self.failed:
            return 0
        alone = len(self.done) + len(self.skipped) + len(self.failed) == 1
        return next(iter(self.failed.values())).exit_code if alone else SOME_FAILED


def find_jobs(
    sources: list[Path],
    folder: Path,
    output: OutputOptions,
    outcome: Outcome,
    *,
    untagged: str = "auto",
    prompts: dict[str, str] | None = None,
) -> list[Job]:
    """Look into the header of every source. Unreadable ones go to ``outcome.failed``.

    Raises:
        UsageError: two inputs would get one name, or a prompt is for a file that is not there.
    """
    jobs, prompts = [], prompts or {}
    for source in sources:
        try:
            info = probe(source, untagged=untagged)
        except InputError as error:
            log.error(describe(source.name, error))
            outcome.failed[source.name] = error
            continue
        jobs.append(Job(info=info, target=output_path(folder, info, output), prompt=prompts.get(source.name, "")))
    _refuse_shared_names(jobs)
    if unknown := set(prompts) - {source.name for source in sources}:
        raise UsageError(f"prompts are given for files that are not among the inputs: {', '.join(sorted(unknown))}")
    return jobs


def _refuse_shared_names(jobs: list[Job]) -> None:
    owner: dict[str, Path] = {}
    for job in jobs:
        key = str(job.target).casefold()  # some file systems do not tell A from a
        if key in owner:
            raise UsageError(
                f"{owner[key].name} and {job.info.path.name} would both become {job.target.name}; rename one of them "
                f"or restore them into different folders"
            )
        owner[key] = job.info.path


def drop_finished(jobs: list[Job], report: Report, outcome: Outcome, *, resume: bool, overwrite: bool) -> list[Job]:
    """The jobs that are left to do.

    Raises:
        UsageError: a result exists that was made from another source or with other settings.
    """
    left, foreign = [], []
    for job in jobs:
        if resume and report.is_done(job.info.path, job.target):
            outcome.skipped.append(job.info.path.name)
            continue
        if job.target.exists() and not overwrite:
            foreign.append(job.target.name)
        left.append(job)
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)} already in {jobs[0].target.parent}, made from another source, with other settings "
            f"or by another program; give --overwrite to replace, or another --output_path"
        )
    return left


def restore_jobs(
    jobs: list[Job],
    restore: Callable[[Job], dict[str, Any]],
    report: Report,
    outcome: Outcome,
    on_failure: Callable[[Job, VSRError], None],
) -> None:
    """Restore one file after the other; a failure is recorded and the next file begins.

    Args:
        restore: does the work for one job and returns the facts for the report.
        on_failure: told of each job that failed, and why.
    """
    for job in jobs:
        name = job.info.path.name
        try:
            report.done(job.info.path, job.target, restore(job))
            outcome.done.append(name)
        except Exception as error:
            failure = error if isinstance(error, VSRError) else _bug(error)
            log.error(describe(name, failure))
            outcome.failed[name] = failure
            on_failure(job, failure)
            with suppress(EncoderError):  # a full disk; the failure itself is already named
                report.failed(name, failure)


def describe(name: str, error: VSRError) -> str:
    """An error with the name of its file, said once."""
    text = str(error)
    return text if name in text else f"{name}: {text}"


def make_folder(folder: Path) -> Path:
    """Make the output folder before any work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the output folder {folder} cannot be made: {error.strerror}; give another one") from error
    return folder


def _bug(error: Exception) -> VSRError:
    log.error("this is a bug, please report it with these lines", exc_info=error)
    return VSRError(f"{type(error).__name__}: {error}")
