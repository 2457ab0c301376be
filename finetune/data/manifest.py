"""The kept clips of a manifest that finetune.scripts.curate has written, as sources of a training set."""

import os
from pathlib import Path, PurePosixPath
from typing import Any

from finetune.data.sources import Source
from vsr.errors import InputError

COLUMNS = ("status", "path", "start_frame", "end_frame", "box_x", "box_y", "box_w", "box_h")


def read_manifest(path: Path) -> list[Source]:
    """Virtual crops: file, frames and box, in the order of the manifest.

    Raises:
        InputError: it is no manifest, keeps no clip, or names a file outside its root.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        table = pq.read_table(path, columns=list(COLUMNS))
        root = path.absolute().parent / table.schema.metadata[b"root"].decode()
    except (OSError, ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no manifest of finetune.scripts.curate: {error}") from error
    found = [_source(row, root, path) for row in table.to_pylist() if row["status"] == "kept"]
    if not found:
        raise InputError(f"{path}: keeps no clip; see report.md beside it for where they went")
    return found


def _source(row: dict[str, Any], root: Path, manifest: Path) -> Source:
    if None in row.values():
        raise InputError(f"{manifest}: is not finished: run finetune.scripts.curate with all stages")
    name = PurePosixPath(row["path"])
    inside = Path(os.path.realpath(root / name)).is_relative_to(root.resolve())
    if name.is_absolute() or ".." in name.parts or not inside:
        raise InputError(f"{manifest}: names {name}, which is outside its root {root}; such a file is not read")
    box = tuple(row[f"box_{side}"] for side in ("x", "y", "w", "h"))
    return Source(path=root / name, span=(row["start_frame"], row["end_frame"]), box=box)
