"""Tables of clips: shards between the stages, and the manifest at the end. Each is complete, or not there at all."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.curation.config import SCORE_COLUMNS
from finetune.curation.rows import KEPT, Row
from vsr.errors import EncoderError
from vsr.video_io.temporary import complete_or_nothing

TEXT, INT, REAL = pa.string(), pa.int64(), pa.float64()
SCHEMA = pa.schema(
    [
        *((name, TEXT) for name in ("clip_id", "source_id", "path")),
        *((name, INT) for name in ("source_bytes", "source_mtime_ns")),
        ("caption", TEXT),
        *((name, INT) for name in ("width", "height", "rotation", "fps_num", "fps_den", "n_frames")),
        *((name, TEXT) for name in ("codec", "pix_fmt", "colorspace", "color_range")),
        *((name, INT) for name in ("scene_idx", "start_frame", "end_frame", "start_pts", "end_pts")),
        *((name, REAL) for name in ("start_s", "end_s")),
        *((name, REAL) for name in SCORE_COLUMNS),
        ("frames_scored", INT),
        ("flow_model", TEXT),
        *((name, REAL) for name in ("flow_score", "motion_frac", "motion_q90")),
        *((f"{box}_{name}", INT) for box in ("motion", "box") for name in ("x", "y", "w", "h")),
        *((name, TEXT) for name in ("status", "stage", "reason", "detail", "error_type")),
    ]
)
VERSION_COLUMNS = ("config_hash", "code_version", "decoder", "weights")
ROOT = b"root"
"""In the metadata of a manifest: the folder that paths are relative to, as seen from the manifest's own."""


@dataclass(frozen=True)
class Shard:
    """The rows of some sources after one stage."""

    path: Path

    def is_made_from(self, key: str) -> bool:
        """Whether it is there, and was made from just what ``key`` stands for."""
        try:
            return pq.read_schema(self.path).metadata.get(b"key") == key.encode()
        except (OSError, pa.ArrowException, AttributeError):  # not there, or not what was written here
            return False

    def write(self, rows: list[Row], key: str) -> None:
        """Appear with all its rows, or not at all."""
        kept = len({row["source_id"] for row in rows if row["status"] == KEPT})
        _write(self.path, pa.Table.from_pylist(rows, SCHEMA.with_metadata({"key": key, "sources": str(kept)})))

    def rows(self) -> list[Row]:
        return pq.read_table(self.path).to_pylist()

    def columns(self, names: Iterable[str]) -> dict[str, list[Any]]:
        """Some columns of all rows."""
        return pq.read_table(self.path, columns=list(names)).to_pydict()

    @property
    def kept_sources(self) -> int:
        """Sources of which something is still kept."""
        return int(pq.read_schema(self.path).metadata[b"sources"])

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def write_manifest(path: Path, shards: Iterable[Shard], versions: dict[str, str], root: str) -> None:
    """Write all rows, sorted by clip_id, and the same versions for each.

    Args:
        versions: one text for each of `VERSION_COLUMNS`.
        root: folder that paths are relative to, as seen from the manifest's.
    """
    tables = [pq.read_table(shard.path).replace_schema_metadata() for shard in shards]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    table = table.sort_by([("clip_id", "ascending"), ("source_id", "ascending"), ("scene_idx", "ascending")])
    for name in VERSION_COLUMNS:
        table = table.append_column(name, pa.array([versions[name]] * len(table), TEXT))
    _write(path, table.replace_schema_metadata({ROOT: root}))


def kept_rows(manifest: Path) -> Iterator[Row]:
    """The kept clips of a manifest, in its order; a few thousand rows are in memory at a time."""
    for batch in pq.ParquetFile(manifest).iter_batches(batch_size=4096):
        yield from (row for row in batch.to_pylist() if row["status"] == KEPT)


def write_kept(path: Path, manifest: Path) -> None:
    """The kept clips as one JSON object a line, without the columns that are empty."""
    with complete_or_nothing(path) as folder, (folder / "result").open("w", encoding="utf-8") as file:
        for row in kept_rows(manifest):
            stated = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(stated, ensure_ascii=False) + "\n")


def _write(path: Path, table: pa.Table) -> None:
    with complete_or_nothing(path) as folder:
        try:
            pq.write_table(table, folder / "result", compression="zstd")
        except OSError as error:
            raise EncoderError(f"{path} cannot be written: {error}; make room, then run the same command") from error
