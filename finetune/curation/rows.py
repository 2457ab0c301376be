"""One clip on its way through the stages: a flat dictionary, whose columns are those of the manifest."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from vsr.errors import VSRError

Row = dict[str, Any]
KEPT, REJECTED, ERROR = "kept", "rejected", "error"
OUT_OF_MEMORY = "out_of_memory"
"""Reason of an error that may pass."""


def rejected(row: Row, stage: str, reason: str, detail: str = "") -> Row:
    """The clip can be read, or says itself that it cannot, and is not wanted."""
    return {**row, "status": REJECTED, "stage": stage, "reason": reason, "detail": detail}


def failed(row: Row, stage: str, reason: str, detail: str, error_type: str = "") -> Row:
    """The clip should have been usable and was not."""
    return {**row, "status": ERROR, "stage": stage, "reason": reason, "detail": detail, "error_type": error_type}


def failed_with(row: Row, stage: str, error: BaseException, *, path: Path, reason: str | None = None) -> Row:
    """The same, from what was raised; the path is left out of the message, since it differs between machines."""
    is_short = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # ours, or torch's
    known = OUT_OF_MEMORY if is_short else None
    reason = reason or known or ("unreadable" if isinstance(error, VSRError) else "unexpected")
    return failed(row, stage, reason, message_of(error, path), type(error).__name__)


def message_of(error: BaseException, path: Path) -> str:
    """The first line of a message, without the path that it may name."""
    lines = str(error).splitlines()
    return lines[0].replace(f"{path}: ", "").replace(str(path), path.name) if lines else ""


def with_clip_id(row: Row) -> Row:
    """The row under the name that follows from its source, its frames and its box; stable from run to run."""
    fields = ("source_id", "start_pts", "end_pts", "box_x", "box_y", "box_w", "box_h")
    text = "|".join(str(row.get(field)) for field in fields)
    return {**row, "clip_id": hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]}


def by_source(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows that follow each other and are of one source."""
    for _, group in groupby(rows, key=lambda row: row["source_id"]):
        yield list(group)
