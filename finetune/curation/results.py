"""What is written when all stages are done: manifest, list, report, contact sheets and, if wanted, files."""

import logging
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from finetune.curation.engines import Engine
from finetune.curation.funnel import count_stages
from finetune.curation.manifest import Shard, kept_rows, write_kept, write_manifest
from finetune.curation.materialize import FOLDER, clips_not_kept
from finetune.curation.report import funnel_table, write_report
from finetune.curation.rows import ERROR, KEPT, Row, by_source
from finetune.curation.stage import Setup
from vsr.errors import SOME_FAILED

log = logging.getLogger("curate")


def finish(
    setup: Setup,
    shards: Mapping[str, list[Shard]],
    thresholds: Mapping[str, float],
    versions: dict[str, str],
    engine: Engine,
    *,
    sheets: int,
    materialize: bool,
) -> int:
    """Write everything that follows from the shards of the last stage; returns the exit code."""
    output, manifest = setup.output, setup.output / "manifest.parquet"
    counts = count_stages(shards)
    root = Path(os.path.relpath(setup.root, output)).as_posix()
    write_manifest(manifest, shards[next(reversed(shards))], versions, root)
    write_kept(output / "kept.jsonl", manifest)
    drawn = _each(engine, "sheet", list(islice(kept_rows(manifest), sheets)))
    shown = [row["clip_id"] for row in drawn if row["status"] == KEPT]
    write_report(output / "report.md", manifest, counts, thresholds, versions, shown)
    failed = sum(count.errors for count in counts)
    if materialize:
        kept = list(kept_rows(manifest))
        if others := clips_not_kept(output / FOLDER, kept):
            names = ", ".join(path.name for path in others[:5]) + (", ..." if len(others) > 5 else "")
            log.warning("%s holds %d clips that are not kept any more: %s", output / FOLDER, len(others), names)
        failed += sum(row["status"] == ERROR for row in _each(engine, "materialize", kept))
    log.info("%s", funnel_table(counts))
    log.info("%d clips kept, %d failed; see %s", counts[-1].kept, failed, output / "report.md")
    return SOME_FAILED if failed else 0


def _each(engine: Engine, stage: str, rows: list[Row]) -> list[Row]:
    """Do something to the clips of each file; returns them, those that failed with their reason."""
    ordered = sorted(rows, key=lambda row: (row["source_id"], row["start_frame"]))
    tasks = list(enumerate(by_source(ordered)))
    done: list[Row] = []
    with tqdm(total=len(tasks), desc=stage, unit="clip", dynamic_ncols=True) as bar:
        for _, outcome in engine.map(stage, tasks):
            done += outcome.rows
            bar.update()
    for row in done:
        if row["status"] == ERROR:
            log.warning("%s of %s: %s (%s)", stage, row["source_id"], row["reason"], row["detail"])
    return sorted(done, key=lambda row: row["clip_id"])
