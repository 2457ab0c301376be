"""``report.json`` in an output folder: what was restored, from what, with what. It is what a resumed run goes by."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from vsr.errors import EncoderError, VSRError

NAME = "report.json"
SAMPLE = 1 << 20


class Report:
    """The report of one output folder, replaced as a whole after every file, so that it is never half-written."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = folder / NAME, settings
        self._entries = _read_entries(self._path)

    def is_done(self, source: Path, target: Path) -> bool:
        """The same source became ``target`` with the same model and settings, and the result is still there."""
        entry = self._entries.get(source.name, {})
        expected = {"status": "done", "settings": self._settings, "output": str(target)}
        if any(entry.get(name) != value for name, value in expected.items()) or not target.exists():
            return False
        known = entry.get("source_identity", {})
        return known == identity(source, known_hash=known)

    def done(self, source: Path, target: Path, facts: dict[str, Any]) -> None:
        """Record a finished file."""
        entry = {"status": "done", "source_identity": identity(source), **facts, "output": str(target)}
        self._record(source.name, entry)

    def failed(self, name: str, error: VSRError) -> None:
        """Record a source that could not be restored."""
        self._record(name, {"status": "failed", "error": str(error), "exit_code": error.exit_code})

    def _record(self, name: str, entry: dict[str, Any]) -> None:
        self._entries[name] = {**entry, "settings": self._settings}
        temporary = self._path.with_name(f".{NAME}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"files": self._entries}, indent=1, ensure_ascii=False))
            temporary.replace(self._path)
        except OSError as error:
            raise EncoderError(f"{self._path} cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                temporary.unlink()


def _read_entries(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads(path.read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # no report, or not ours: then nothing counts as done


def identity(source: Path, known_hash: dict[str, Any] | None = None) -> dict[str, Any]:
    """Size, time and SHA-256 of a file, or of all files of a folder.

    The content is not read again when size and time are those of ``known_hash``.
    """
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    stats = [path.stat() for path in files]
    found = {"bytes": sum(stat.st_size for stat in stats), "modified_ns": max(stat.st_mtime_ns for stat in stats)}
    if known_hash and all(known_hash.get(name) == value for name, value in found.items()):
        return known_hash
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    found["sha256"] = digest.hexdigest()
    if known_hash and found["sha256"] == known_hash.get("sha256"):
        return known_hash  # copied or touched, but the same content
    return found


def fingerprint(model: Path) -> str:
    """A hash that changes with the model: its JSON files, and size, header and three samples of its weight files."""
    digest = hashlib.sha256()
    for path in sorted(model.rglob("*.json")):
        digest.update(str(path.relative_to(model)).encode() + path.read_bytes())
    for path in sorted(model.rglob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(model)} {size}".encode())
        with path.open("rb") as file:
            for position in (0, size // 2, max(size - SAMPLE, 0)):
                file.seek(position)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]
