"""report.md: where the clips went, how their scores are spread, what decided, and what some of them look like."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from finetune.curation.config import SCORE_COLUMNS
from finetune.curation.funnel import StageCount
from finetune.curation.sheets import FOLDER
from vsr.video_io.temporary import complete_or_nothing

MEASURED = (*SCORE_COLUMNS, "flow_score", "motion_frac")
BINS = 10
BAR = 40
"""Letters of the longest bar."""


def write_report(
    path: Path,
    manifest: Path,
    counts: list[StageCount],
    thresholds: Mapping[str, float],
    versions: Mapping[str, str],
    sheets: Iterable[str],
) -> None:
    """Write the report of a manifest.

    Args:
        thresholds: column -> the least score that was kept.
        sheets: clip ids whose contact sheets are there.
    """
    parts = ["# Curated set", funnel_table(counts), _reasons(counts), _thresholds(thresholds)]
    parts += ["## Scores of all clips that were measured", *_histograms(manifest)]
    parts += ["## Versions", "\n".join(f"- {name}: {value}" for name, value in versions.items())]
    parts += ["## Some of the kept clips", *(f"{clip}\n\n![{clip}]({FOLDER}/{clip}.jpg)" for clip in sheets)]
    with complete_or_nothing(path) as folder:
        (folder / "result").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def funnel_table(counts: Iterable[StageCount]) -> str:
    """Markdown; in each line in + added = kept + rejected + errors."""
    lines = ["| stage | in | added by cuts | kept | rejected | errors |", "|---|---|---|---|---|---|"]
    for c in counts:
        lines.append(f"| {c.name} | {c.taken} | {c.added} | {c.kept} | {c.rejected} | {c.errors} |")
    return "\n".join(lines)


def histogram(values: np.ndarray) -> str:
    """Text bars of equal bins between the smallest and the largest value."""
    counts, edges = np.histogram(values, bins=BINS)
    bars = ["#" * round(BAR * count / max(counts)) for count in counts]
    rows = zip(edges, edges[1:], counts, bars, strict=False)
    return "\n".join(f"{low:10.4f} {high:10.4f} {count:8d} {bar}".rstrip() for low, high, count, bar in rows)


def _reasons(counts: Iterable[StageCount]) -> str:
    lines = ["| stage | status | reason | clips |", "|---|---|---|---|"]
    for c in counts:
        lines += [f"| {c.name} | {status} | {reason} | {n} |" for (status, reason), n in sorted(c.reasons.items())]
    return "\n".join(lines)


def _thresholds(thresholds: Mapping[str, float]) -> str:
    chosen = "\n".join(f"- {column} >= {least:.6f}" for column, least in thresholds.items())
    return f"## Thresholds that were applied\n\n{chosen or 'none'}\n\nThey are not the paper's, which states none."


def _histograms(manifest: Path) -> Iterable[str]:
    for column in MEASURED:
        values = pq.read_table(manifest, columns=[column])[column].drop_null().to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            yield f"### {column} ({len(values)} clips)\n\n```\n{histogram(values)}\n```"
