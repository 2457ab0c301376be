"""What goes in: every video of a folder, or every row of a CSV. Each becomes one row, whatever is wrong with it."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from finetune.curation.config import MetadataConfig
from finetune.curation.rows import KEPT, Row, failed, rejected
from finetune.data.sources import files_in
from vsr.errors import InputError, UsageError

STAGE = "input"
PATH_COLUMNS = ("video", "path")
LONGEST_FIELD = 1 << 20


def list_inputs(source: Path, root: Path, config: MetadataConfig, output: Path) -> Iterator[Row]:
    """One row per input, in a fixed order.

    Args:
        source: a folder, searched recursively, or a CSV with a column ``video`` (or ``path``).
        root: folder that paths are relative to, and may not leave.
        output: folder of the results; what lies in it is no input.

    Raises:
        InputError: there is no such folder or CSV, or it names no video.
        UsageError: the CSV lacks a column.
    """
    if source.is_dir():
        if config.csv:
            raise UsageError("metadata: csv: these filters need a CSV as --input, got a folder")
        found = (_named(path, root) for path in files_in(source, "video") if not path.is_relative_to(output))
    else:
        found = _rows_of_csv(source, config)
    seen: dict[str, int] = {}
    for row in found:
        key = row["path"]
        seen[key] = seen.get(key, 0) + 1
        yield _checked({**row, "source_id": key}, root) if seen[key] == 1 else _repeated(row, seen[key])
    if not seen:
        raise InputError(f"{source}: names no video; expected a folder of videos or a CSV with a row for each")


def _named(path: Path, root: Path) -> Row:
    """Names that are no UTF-8 are shown escaped; no table can hold them."""
    name = path.relative_to(root).as_posix()
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return {"path": shown, "status": KEPT} if shown == name else _refused(shown, "bad_name", "its name is no UTF-8")


def _rows_of_csv(source: Path, config: MetadataConfig) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with source.open(encoding="utf-8-sig", newline="", errors="backslashreplace") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            column = next((name for name in PATH_COLUMNS if name in names), None)
            missing = [each.column for each in config.csv if each.column not in names]
            if column is None or missing:
                wanted = ", ".join(missing) or " or ".join(PATH_COLUMNS)
                raise UsageError(f"{source}: has no column {wanted}; it has {', '.join(names)}")
            for fields in reader:
                yield _row_of_csv(fields, column, config)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; expected a folder or a CSV") from error
    except csv.Error as error:
        raise InputError(f"{source}: is no CSV: {error}") from error


def _row_of_csv(fields: dict[str, str], column: str, config: MetadataConfig) -> Row:
    row = {"path": fields[column] or "", "caption": fields.get("caption"), "status": KEPT}
    for minimum in config.csv:
        try:
            fits = float(fields[minimum.column]) >= minimum.at_least
        except (TypeError, ValueError):
            fits = False
        if not fits:
            return rejected(row, STAGE, "csv", f"{minimum.column}: {fields[minimum.column]}")
    return row


def _refused(path: str, reason: str, detail: str) -> Row:
    return failed({"path": path}, STAGE, reason, detail)


def _repeated(row: Row, number: int) -> Row:
    again = {**row, "source_id": f"{row['path']}#{number}"}
    return rejected(again, STAGE, "duplicate", "the same file is listed before")


def _checked(row: Row, root: Path) -> Row:
    """The row with size and time of its file, or the reason why that file is not touched."""
    if row["status"] != KEPT:
        return row
    pure = PurePosixPath(row["path"])
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in row["path"]:
        return failed(row, STAGE, "outside_root", "expected a path below the root")
    path = root / pure
    try:
        if not Path(os.path.realpath(path)).is_relative_to(root.resolve()):  # a link in a circle fails below
            return failed(row, STAGE, "outside_root", "it is a link to a file outside the root")
        status = path.stat()
    except OSError as error:
        return failed(row, STAGE, "missing", error.strerror or "", type(error).__name__)
    if not path.is_file():
        return failed(row, STAGE, "missing", "it is no file")
    return {**row, "source_bytes": status.st_size, "source_mtime_ns": status.st_mtime_ns}
