"""The files of a batch: found and looked into before the work, restored one by one; a bad file costs only itself."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vsr.errors import SOME_FAILED, InputError, UsageError, VSRError
from vsr.metrics import stem_of
from vsr.report import Report
from vsr.settings import Layout
from vsr.video_io import OutputOptions, VideoInfo, output_path, probe
from vsr.video_io.output import refuse_too_large

log = logging.getLogger(__name__)

T = TypeVar("T")


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
    def name(self) -> str:
        """File name of the source."""
        return self.info.path.name

    @property
    def stem(self) -> str:
        """What ground truth is found by."""
        return stem_of(self.info.path)


@dataclass
class Outcome:
    """What became of the files of a batch, by name of the source."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, VSRError] = field(default_factory=dict)

    def fail(self, name: str, error: VSRError) -> None:
        """Record and say a failure. Only its words are kept: an exception keeps alive whatever was on the device."""
        log.error(describe(name, error))
        self.failed[name] = type(error)(str(error))

    @property
    def exit_code(self) -> int:
        """0 when all is well; the code of the failure when it was the only file; 7 when some of several failed."""
        if not self.failed:
            return 0
        alone = len({*self.done, *self.skipped, *self.failed}) == 1
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
        UsageError: two inputs would get one name, a result would replace a source, or a prompt is for a file that is
            not there.
    """
    jobs, prompts = [], prompts or {}
    _refuse_equal_names(sources)
    for source in sources:
        try:
            info = probe(source, untagged=untagged)
        except InputError as error:
            outcome.fail(source.name, error)
            continue
        jobs.append(Job(info=info, target=output_path(folder, info, output), prompt=prompts.get(source.name, "")))
    _refuse_shared_names(jobs)
    for job in jobs:
        refuse_replacing_a_source(job.target, [Path(os.path.realpath(source)) for source in sources])
    if unknown := set(prompts) - {source.name for source in sources}:
        raise UsageError(f"prompts are given for files that are not among the inputs: {', '.join(sorted(unknown))}")
    return jobs


def lay_out(
    jobs: list[Job], layout_of: Callable[..., Layout], output: OutputOptions, outcome: Outcome
) -> dict[Job, Layout]:
    """How each file is cut. Those that cannot be cut or written as asked go to ``outcome.failed``.

    Args:
        layout_of: takes ``height`` and ``width`` of the frames.

    Raises:
        UsageError: no file can be cut or written so.
    """
    layouts, refused = {}, {}
    for job in jobs:
        try:
            layout = layout_of(height=job.info.height, width=job.info.width)
            refuse_too_large(job.info, output, layout.size)
            layouts[job] = layout
        except UsageError as error:
            refused[job.name] = error
    if refused and not layouts:
        raise UsageError(describe(*next(iter(refused.items()))))
    for name, error in refused.items():
        outcome.fail(name, error)
    return layouts


def refuse_replacing_a_source(target: Path, sources: list[Path]) -> None:
    """Raise UsageError when a result would be written onto, into or around a source, whatever else is allowed."""
    place = target.resolve()
    for source in sources:
        if place == source or place in source.parents or (source.is_dir() and source in place.parents):
            raise UsageError(f"the result {target} would overwrite the source {source}; give another --output_path")


def refuse_shared_stems(jobs: list[Job]) -> None:
    """Raise UsageError when two files share the stem by which comparisons are named and ground truth is found."""
    for first, second in twins(jobs, lambda job: job.stem):
        raise UsageError(
            f"{first.name} and {second.name} have one stem, by which ground truth and comparisons go; rename one"
        )


def _refuse_equal_names(sources: list[Path]) -> None:
    """Before any is opened: the report and the exit code know files by name."""
    for first, second in twins(sources, lambda source: source.name):
        raise UsageError(
            f"{first} and {second} have one name; rename one of them or restore them into different folders"
        )


def _refuse_shared_names(jobs: list[Job]) -> None:
    for first, second in twins(jobs, lambda job: str(job.target)):
        raise UsageError(
            f"{first.name} and {second.name} would both become {second.target.name}; rename one of them or "
            f"restore them into different folders"
        )


def twins(items: list[T], key: Callable[[T], str]) -> Iterator[tuple[T, T]]:
    """Pairs of items with one key, the first of them and another."""
    owner: dict[str, T] = {}
    for item in items:
        first = owner.setdefault(key(item).casefold(), item)  # some file systems do not tell A from a
        if first is not item:
            yield first, item


def drop_finished(
    jobs: list[Job],
    report: Report,
    outcome: Outcome,
    settings_of: Callable[[Job], dict[str, Any]],
    *,
    resume: bool,
    refused: set[Job],
) -> list[Job]:
    """The jobs that are left to do.

    Args:
        refused: those whose results were there before ``report`` was read, and are not to be replaced.

    Raises:
        UsageError: a result exists that was made from another source or with other settings.
    """
    left, foreign = [], []
    for job in jobs:
        if resume and report.is_done(job.info.path, job.target, settings_of(job)):
            outcome.skipped.append(job.name)
            continue
        if job in refused:
            foreign.append(job.target.name)
        left.append(job)
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)} already in {jobs[0].target.parent}, made from another source, with other settings "
            f"or by another program; give --overwrite to replace, or another --output_path"
        )
    return left


def attempt(work: Callable[[], Any], name: str, outcome: Outcome) -> bool:
    """Do the work for one file; a failure is named and stops nothing. Returns whether it went well."""
    try:
        work()
        return True
    except Exception as error:
        outcome.fail(name, error if isinstance(error, VSRError) else _bug(error))
        return False


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
