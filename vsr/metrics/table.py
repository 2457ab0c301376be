"""Scores of the test sets beside published ones.

    python -m vsr.metrics.table results/DOVE
    python -m vsr.metrics.table results/ours --method DOVE --paper DUO-VSR

Reads `metrics.json` in each folder of a test set, as inference.sh leaves it. The difference is ours minus theirs, and
``+`` or ``-`` behind it says whether that is better or worse. Published numbers of different papers are not comparable.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vsr.errors import InputError, UsageError, VSRError

PUBLISHED = Path(__file__).parents[2] / "configs" / "published.yaml"
REPORT = "metrics.json"
DOVER_SHOWN = "dover_overall"
"""Beside a paper's DOVER, which does not say which of the three numbers it is."""

Numbers = Mapping[str, Mapping[str, float]]
"""Set -> metric -> value."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of ours and its counterpart."""

    test_set: str
    metric: str
    ours: float | None
    """None: not scored, or no clip could be."""
    published: float | None
    """None: the paper has no such number."""
    lower_better: bool
    coverage: str
    """Scored clips of all, empty when nothing was scored."""

    def text(self) -> str:
        """Set, metric, ours, published, difference, verdict, and clips when some have no score."""
        cells = [f"{self.test_set:10}", f"{self.metric:16}", _number(self.ours), _number(self.published)]
        if self.ours is not None and self.published is not None:
            difference = self.ours - self.published
            better = difference < 0 if self.lower_better else difference > 0
            cells += [f"{difference:+10.4f}", "=" if difference == 0 else "+" if better else "-"]
        if self.coverage:
            cells.append(f"over {self.coverage}")
        return " ".join(cells).rstrip()


def read_published(path: Path = PUBLISHED) -> dict[str, Any]:
    """Paper -> source, and method -> set -> metric -> value."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def published_numbers(published: Mapping[str, Any], paper: str, method: str) -> Numbers:
    """What a paper says of a method.

    Raises:
        UsageError: it says nothing; the message has the names there are.
    """
    if paper not in published:
        raise UsageError(f"paper must be one of {', '.join(published)}, got {paper}")
    methods = published[paper]["methods"]
    if method not in methods:
        raise UsageError(f"{paper} has numbers of {', '.join(methods)}, not of {method}")
    return methods[method]


def read_reports(folder: Path) -> dict[str, dict[str, Any]]:
    """Test set -> stored report, for every folder that has one.

    Raises:
        InputError: no report, or one that cannot be read.
    """
    files = sorted(folder.glob(f"*/{REPORT}"))
    if not files:
        raise InputError(f"{folder} has no folder with {REPORT}; run inference.sh or eval_metrics.py first")
    return {file.parent.name: _read_report(file) for file in files}


def _read_report(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("average"), dict):
        raise InputError(f"{file} is no report of eval_metrics.py: it has no averages")
    return report


def compare(reports: Mapping[str, Mapping[str, Any]], published: Numbers) -> list[Row]:
    """A row for each number that either side has, ours first."""
    rows = []
    for test_set in [*reports, *(name for name in published if name not in reports)]:
        report, theirs = reports.get(test_set, {}), published.get(test_set, {})
        average = report.get("average", {})
        names = [*average, *(name for name in map(_column, theirs) if name not in average)]
        lower = set(report.get("lower_better", ()))
        rows += [_row(test_set, name, average.get(name), theirs, name in lower) for name in names]
    return rows


def _row(
    test_set: str, metric: str, average: Mapping[str, Any] | None, theirs: Mapping[str, float], lower_better: bool
) -> Row:
    by_column = {_column(name): value for name, value in theirs.items()}
    return Row(
        test_set=test_set,
        metric=metric,
        ours=average and average["mean"],
        published=by_column.get(metric),
        lower_better=lower_better,
        coverage=f"{average['scored']} of {average['expected']}" if average else "",
    )


def _column(name: str) -> str:
    return DOVER_SHOWN if name == "dover" else name


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.4f}"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of folders of test sets")
    parser.add_argument("--paper", default="DOVE", help="whose table (default: DOVE)")
    parser.add_argument("--method", help="which column of it (default: the name of the results folder)")
    parser.add_argument(
        "--published", type=Path, default=PUBLISHED, help="the numbers (default: configs/published.yaml)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    args = parse_args(argv)
    try:
        published = read_published(args.published)
        method = args.method or args.results.resolve().name
        rows = compare(read_reports(args.results), published_numbers(published, args.paper, method))
    except VSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"published: {method} in {published[args.paper]['source']}")
    if note := published[args.paper].get("note"):
        print(f"    {note}")
    print(f"{'set':10} {'metric':16} {'ours':>10} {'published':>10} {'difference':>10}")
    print("\n".join(row.text() for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
