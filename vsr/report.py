"""``report.json`` in an output folder: what was restored, from what, with what. It is what a resumed run goes by."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vsr.errors import EncoderError, VSRError
from vsr.video_io import REPORT

log = logging.getLogger(__name__)

SAMPLE = 1 << 12
"""Bytes of a tensor that are looked at, at either end of it."""
WEIGHED = ("vae", "transformer", "scheduler")
"""Parts of a model folder that decide what it does; the embedding of the empty prompt may be added to it later."""
READ = (".json", ".safetensors")
"""What is loaded of them."""

Entry = dict[str, Any]


class Report:
    """The report of one output folder, replaced as a whole at every change, so that it is never half-written.

    A file is entered when it begins: a run that is killed between the end of a result and the end of its entry still
    finds the result its own.

    Args:
        folder: the output folder.
        lock: held while an entry is made, where several processes share the folder.
    """

    def __init__(self, folder: Path, lock: Callable[[], AbstractContextManager] = nullcontext) -> None:
        self._path, self._lock = folder / REPORT, lock
        self._entries = _read_entries(self._path) or {}

    def is_done(self, source: Path, target: Path, settings: Entry) -> bool:
        """The same source became ``target`` with the same settings, and the result is still there."""
        for entry in self._standing(source.name):
            expected = {"settings": settings, "output": target.name}
            if all(entry.get(name) == value for name, value in expected.items()) and target.exists():
                known = entry.get("source_identity")
                return isinstance(known, dict) and known == identity(source, known)
        return False

    def _standing(self, name: str) -> Iterator[Entry]:
        """What is known of results that are there: the last run's, and the one's before that it has not replaced."""
        entry = self._entries.get(name, {})
        output, status = str(entry.get("output")), entry.get("status")
        published = status == "started" and entry.get("replaces") != _stamp(self._path.parent / output)
        if status == "done" or published:
            yield entry
        earlier = entry.get("earlier")
        if isinstance(earlier, dict) and not (published and earlier.get("output") == output):
            yield earlier

    def started(self, source: Path, target: Path, settings: Entry) -> None:
        """Enter a file before it is restored."""
        entry = {"status": "started", "output": target.name, "source_identity": identity(source)}
        entry |= {"replaces": _stamp(target), "settings": settings}
        self._record(source.name, {**entry, **self._kept(source.name)})

    def done(self, source: Path, facts: Entry) -> None:
        """Complete the entry of a file."""
        entry = self._entries[source.name]
        kept = {name: entry[name] for name in ("output", "source_identity", "settings")}
        self._record(source.name, {"status": "done", **facts, **kept})

    def failed(self, name: str, error: VSRError) -> None:
        """Record a source that could not be restored; an earlier result of it is not forgotten."""
        entry = {"status": "failed", "error": str(error), "exit_code": error.exit_code}
        self._record(name, {**entry, **self._kept(name)})

    def _kept(self, name: str) -> Entry:
        """The entry of an earlier result that still stands, to go along with a new one."""
        for entry in self._standing(name):
            return {"earlier": {fact: value for fact, value in entry.items() if fact != "earlier"}}
        return {}

    def _record(self, name: str, entry: Entry) -> None:
        with self._lock():
            read = _read_entries(self._path)
            if read is None:
                self._keep_foreign()
            self._entries = {**self._entries, **(read or {}), name: entry}  # others may have entered theirs
            self._write()

    def _keep_foreign(self) -> None:
        kept = self._path.with_name(f"{REPORT}.old")
        log.warning("%s is damaged or not of this program; it is kept as %s", self._path, kept.name)
        with _disk_errors(self._path):
            self._path.replace(kept)

    def _write(self) -> None:
        temporary = self._path.with_name(f".{REPORT}.{os.getpid()}")
        lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in self._entries.items()]  # one per file
        try:
            with _disk_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_text('{"files": {\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
                temporary.replace(self._path)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EncoderError(f"{path} cannot be written: {error.strerror}") from error


def _read_entries(path: Path) -> dict[str, Entry] | None:
    """Empty when there is no report; None when what is there is not one: then nothing counts as done."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}
    except OSError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _stamp(target: Path) -> list[int] | None:
    """Tells a result from the one that replaced it."""
    with suppress(OSError):
        stat = target.stat()
        return [stat.st_mtime_ns, stat.st_ino]
    return None


def identity(source: Path, known: Entry | None = None) -> Entry:
    """Size, time and SHA-256 of a file, or of all files of a folder.

    The content is not read again when size and time are those of ``known``.
    """
    files, found = _files_of(source), size_and_time(source)
    if known and all(known.get(name) == value for name, value in found.items()):
        return known
    digest = hashlib.sha256()
    for path in files:
        digest.update(hash_of(path).encode())
    found["sha256"] = digest.hexdigest()
    if known and found["sha256"] == known.get("sha256"):
        return known  # copied or touched, but the same content
    return found


def size_and_time(source: Path) -> Entry:
    """What changes, in practice, with the content of a file or of the files of a folder; nothing is read."""
    stats = {path.name: path.stat() for path in _files_of(source)}
    found = {"bytes": sum(s.st_size for s in stats.values()), "modified_ns": max(s.st_mtime_ns for s in stats.values())}
    if source.is_dir():  # whose frames may change places
        listed = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()]
        found["listing"] = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
    return found


def _files_of(source: Path) -> list[Path]:
    """A file itself, or the files of a folder."""
    return [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(model: Path) -> str:
    """A hash that changes with the model: its JSON files, and of its weights size, header, a part of every tensor."""
    digest = hashlib.sha256((model / "model_index.json").read_bytes())
    for path in sorted(path for part in WEIGHED for kind in READ for path in (model / part).glob(f"[!.]*{kind}")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(model)} {size}".encode())
        with path.open("rb") as file:
            for position, length in _telling_parts(file, size) if path.suffix == ".safetensors" else [(0, size)]:
                file.seek(position)
                digest.update(file.read(length))
    return digest.hexdigest()[:16]


def _telling_parts(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Where the header of a safetensors file is, and where each tensor begins and ends: position and length."""
    start = min(8 + int.from_bytes(file.read(8), "little"), size)
    parts = [(0, start)]
    with suppress(ValueError, AttributeError, KeyError, TypeError):  # another file: whoever loads it says so
        header = json.loads(file.read(max(start - 8, 0)))
        spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        for begin, end in sorted(spans):
            length = min(SAMPLE, end - begin)
            parts += [(start + begin, length), (start + end - length, length)]
    return parts
