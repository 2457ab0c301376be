"""runs.jsonl: what differs from run to run, one JSON object a line. The manifest holds the rest."""

import json
import os
import socket
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from finetune.curation.worker import Outcome


class RunLog:
    """Appends to OUTPUT/runs.jsonl; a line that a killed run left unfinished is ended first."""

    def __init__(self, path: Path, **facts: Any) -> None:
        unfinished = _ends_within_a_line(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._file.write("\n" if unfinished else "")
        self._run, self._begun = uuid.uuid4().hex[:8], time.perf_counter()
        self._write(event="start", host=socket.gethostname(), **facts)

    def clip(self, stage: str, outcome: Outcome) -> None:
        """One source was done in one stage."""
        source = outcome.rows[0]["source_id"]
        seconds = round(outcome.seconds, 3)
        facts = {"seconds": seconds, "attempts": outcome.attempts, "host": outcome.host}
        self._write(event="clip", stage=stage, source_id=source, **facts)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        how = "done" if kind is None else kind.__name__
        self._write(event="end", seconds=round(time.perf_counter() - self._begun, 3), how=how)
        self._file.close()

    def _write(self, **facts: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"run": self._run, "at": now, **facts}) + "\n")


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
