"""What a scoring run found: scores per clip, averages that say over how many clips, and every failure by name."""

import csv
import io
import json
import os
import platform
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from vsr.errors import SOME_FAILED, InputError, UsageError

MODULES = ("torch", "numpy", "cv2", "av")
"""What decodes and computes; asked by module, since OpenCV comes in packages of several names."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that has no score, or lacks the score of one metric."""

    name: str
    reason: str
    metric: str | None = None
    """None: the whole clip."""

    def __str__(self) -> str:
        return f"{self.name}{f' ({self.metric})' if self.metric else ''}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Values of one metric over the frames of a clip."""

    mean: float
    std: float
    """Population standard deviation over the frames; 0 for a single one."""
    count: int
    """Scored frames."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Statistics":
        return cls(mean=statistics.fmean(values), std=statistics.pstdev(values), count=len(values))


@dataclass(frozen=True, kw_only=True)
class Average:
    """Mean over clips of their means."""

    mean: float | None
    """None when no clip has this score."""
    scored: int
    expected: int
    """All clips named on either side; more than ``scored`` when some failed."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of ``vsr.metrics.score``."""

    pred: Path
    gt: Path | None
    settings: Mapping[str, Any]
    definitions: Mapping[str, str]
    """Metric -> what its number means."""
    lower_better: frozenset[str] = frozenset()
    """Metrics of which less is better."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Weight file -> SHA-256."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of the Python packages that the metrics came from."""
    clips: Mapping[str, Mapping[str, Statistics]]
    """Clip -> metric -> statistics; a clip that failed is absent."""
    failures: Sequence[Failure]

    @property
    def names(self) -> list[str]:
        """All clips, scored or not."""
        return sorted(self.clips.keys() | {failure.name for failure in self.failures})

    @property
    def averages(self) -> dict[str, Average]:
        return {metric: self._average(metric) for metric in self.definitions}

    @property
    def exit_code(self) -> int:
        """0: all scored; 7: some failed; 3: nothing could be scored."""
        if not self.failures:
            return 0
        return SOME_FAILED if self.clips else InputError.exit_code

    def _average(self, metric: str) -> Average:
        means = [scores[metric].mean for scores in self.clips.values() if metric in scores]
        mean = statistics.fmean(means) if means else None
        return Average(mean=mean, scored=len(means), expected=len(self.names))

    def as_dict(self) -> dict[str, Any]:
        """The report as it is stored in JSON."""
        return {
            "versions": versions() | dict(self.packages),
            "weights": dict(self.weights),
            "pred": str(self.pred),
            "gt": None if self.gt is None else str(self.gt),
            "settings": dict(self.settings),
            "definitions": dict(self.definitions),
            "lower_better": sorted(self.lower_better),
            "videos": {
                name: {metric: asdict(values) for metric, values in self.clips[name].items()}
                for name in sorted(self.clips)
            },
            "average": {metric: asdict(average) for metric, average in self.averages.items()},
            "failures": [asdict(failure) for failure in self.failures],
        }

    def write(self, path: Path) -> None:
        """Store the report as JSON.

        Raises:
            UsageError: the place cannot be written.
        """
        _write(path, json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")

    def write_csv(self, path: Path) -> None:
        """Store the means as a table: a line per clip, then the averages; what has no score is empty.

        Raises:
            UsageError: the place cannot be written.
        """
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["clip", *self.definitions])
        for name in self.names:
            scores = self.clips.get(name, {})
            lines.writerow([name, *(scores[m].mean if m in scores else "" for m in self.definitions)])
        means = [average.mean for average in self.averages.values()]
        lines.writerow(["average", *("" if mean is None else mean for mean in means)])
        lines.writerow(["scored", *(f"{average.scored} of {average.expected}" for average in self.averages.values())])
        _write(path, text.getvalue())

    def table(self) -> str:
        """Clips by metrics as text, the averages last, then the failures with their reasons."""
        width = max([len("average"), *map(len, self.names)])
        wide = {metric: max(10, len(metric)) for metric in self.definitions}
        lines = [" ".join([f"{'':{width}}", *(f"{metric:>{wide[metric]}}" for metric in self.definitions)])]
        for name in self.names:
            scores = self.clips.get(name, {})
            cells = [f"{scores[m].mean:{w}.4f}" if m in scores else f"{'failed':>{w}}" for m, w in wide.items()]
            lines.append(" ".join([f"{name:{width}}", *cells]))
        means = {metric: average.mean for metric, average in self.averages.items()}
        cells = [f"{'-':>{w}}" if means[m] is None else f"{means[m]:{w}.4f}" for m, w in wide.items()]
        lines.append(" ".join([f"{'average':{width}}", *cells, self._coverage()]))
        return "\n".join([*lines, *(f"failed: {failure}" for failure in self.failures)])

    def _coverage(self) -> str:
        """How many clips each average stands on; said once where all metrics agree."""
        counts = {metric: f"{average.scored} of {average.expected}" for metric, average in self.averages.items()}
        if len(set(counts.values())) == 1:
            return f"  over {next(iter(counts.values()))}"
        return "  over " + ", ".join(f"{count} ({metric})" for metric, count in counts.items())


def check_writable(path: Path) -> None:
    """UsageError, before any work, when no file can be written there."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    """Store a text; a reader never sees half of it, since it is renamed into place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names that are not UTF-8
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def versions() -> dict[str, str]:
    """This repository, Python and the packages in use."""
    return {
        "one-step-vsr": _own_version(),
        "python": platform.python_version(),
        **{name: str(import_module(name).__version__) for name in MODULES},
    }


def _own_version() -> str:
    """From pyproject.toml: the repository is used as a checkout and need not be installed."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
