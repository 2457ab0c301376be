"""All stages over all shards: what is there already is kept, what is not is made, and the manifest comes at the end.

OUTPUT/work/STAGE/shard-000000.parquet holds the rows of some sources after STAGE. Each names what it was made from: the
shard before, the sections of the configuration that matter to the stage, and the versions of the code. A shard that
was made from the same is not made again; one that a killed run left unfinished is not there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from finetune.curation.engines import Engine
from finetune.curation.inputs import list_inputs
from finetune.curation.manifest import Shard
from finetune.curation.rows import KEPT, Row, by_source, with_clip_id
from finetune.curation.runs import RunLog
from finetune.curation.selection import select, thresholds_of
from finetune.curation.stage import Setup
from finetune.curation.stages import STAGES
from finetune.curation.versions import weights_of


class Pipeline:
    """One set in the making."""

    def __init__(self, setup: Setup, source: Path, versions: dict[str, str], shard_size: int, log: RunLog) -> None:
        self._setup, self._source = setup, source
        self._versions = {name: text for name, text in versions.items() if name not in ("config_hash", "weights")}
        self._weights: dict[str, dict[str, str]] = {}
        self._size, self._log = shard_size, log
        self.thresholds: dict[str, float] = {}

    def run(self, stages: Iterable[str], engine: Engine) -> dict[str, list[Shard]]:
        """Run ``stages``; returns the shards of each, and of "input"."""
        shards = {"input": self._list()}
        for stage in stages:
            made = self._run_stage(stage, shards[next(reversed(shards))], engine)
            shards[stage] = self._select(made) if stage == "quality" else made
        return shards

    def _list(self) -> list[Shard]:
        """Shards of the inputs; written every time, since what they list may have changed."""
        setup, shards = self._setup, []
        rows = list_inputs(self._source, setup.root, setup.config.metadata, setup.output)
        while chunk := list(islice(rows, self._size)):
            shards.append(self._shard("input", len(shards)))
            shards[-1].write([with_clip_id(row) for row in chunk], key="")
        return shards

    def _run_stage(self, stage: str, before: list[Shard], engine: Engine) -> list[Shard]:
        after = [self._shard(stage, i) for i in range(len(before))]
        keys = [self.key(stage, shard) for shard in before]
        todo = [i for i in range(len(before)) if not after[i].is_made_from(keys[i])]
        bar = tqdm(
            total=sum(shard.kept_sources for shard in before),
            initial=sum(shard.kept_sources for i, shard in enumerate(before) if i not in set(todo)),
            desc=stage,
            unit="clip",
            dynamic_ncols=True,
        )
        open_shards = _OpenShards(before, after, keys)
        with bar:
            for (i, place), outcome in engine.map(stage, open_shards.tasks(todo)):
                self._log.clip(stage, outcome)
                open_shards.put(i, place, outcome.rows)
                bar.update()
        return after

    def _select(self, scored: list[Shard]) -> list[Shard]:
        """Apply the thresholds, which may depend on all scores, to every row."""
        config = self._setup.config.quality
        self.thresholds = thresholds_of(config, _scores(scored, config.deciding))
        after = [self._shard("select", i) for i in range(len(scored))]
        for shard, selected in zip(scored, after, strict=True):
            key = _digest([self.key("quality", shard), self.thresholds])
            if not selected.is_made_from(key):
                selected.write([select(row, self.thresholds) for row in shard.rows()], key)
        return after

    def _shard(self, stage: str, number: int) -> Shard:
        return Shard(self._setup.output / "work" / stage / f"shard-{number:06d}.parquet")

    def key(self, stage: str, before: Shard) -> str:
        """What the rows of a shard after ``stage`` are made from."""
        sections = {name: asdict(getattr(self._setup.config, name)) for name in STAGES[stage].sections}
        for section in sections.values():
            for field in STAGES[stage].unused:
                section.pop(field, None)
        if stage not in self._weights:
            self._weights[stage] = weights_of(self._setup.config, stage)
        return _digest([stage, sections, self._versions, self._weights[stage], before.digest])


class _OpenShards:
    """Shards some of whose sources are under way; each is written when its last one is done."""

    def __init__(self, before: list[Shard], after: list[Shard], keys: list[str]) -> None:
        self._before, self._after, self._keys = before, after, keys
        self._sources: dict[int, list[list[Row]]] = {}
        self._left: dict[int, int] = {}

    def tasks(self, todo: list[int]) -> Iterator[tuple[tuple[int, int], list[Row]]]:
        """The sources that still have a kept clip, each with its shard and its place in it."""
        for i in todo:
            self._sources[i] = list(by_source(self._before[i].rows()))
            alive = [place for place, rows in enumerate(self._sources[i]) if _kept(rows)]
            self._left[i] = len(alive)
            if not alive:
                self._write(i)
            for place in alive:
                yield (i, place), _kept(self._sources[i][place])

    def put(self, i: int, place: int, rows: list[Row]) -> None:
        """Take what came of one source."""
        settled = [row for row in self._sources[i][place] if row["status"] != KEPT]
        done = sorted([*settled, *rows], key=lambda row: row.get("scene_idx") or 0)
        self._sources[i][place] = [with_clip_id(row) for row in done]
        self._left[i] -= 1
        if not self._left[i]:
            self._write(i)

    def _write(self, i: int) -> None:
        self._after[i].write([row for rows in self._sources.pop(i) for row in rows], self._keys[i])


def _kept(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == KEPT]


def _scores(shards: list[Shard], columns: tuple[str, ...]) -> dict[str, list[float]]:
    """The scores of all clips that have them."""
    scores: dict[str, list[float]] = {column: [] for column in columns}
    for shard in shards:
        found = shard.columns(["status", *columns])
        for column in columns:
            pairs = zip(found["status"], found[column], strict=True)
            scores[column] += [value for status, value in pairs if status == KEPT]
    return scores


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
