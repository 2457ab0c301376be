"""How many clips each stage took in, kept, rejected and failed on, and why. The sums are checked, not believed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune.curation.manifest import Shard
from finetune.curation.rows import ERROR, KEPT, REJECTED


@dataclass(kw_only=True)
class StageCount:
    """Clips of one stage. ``taken + added == kept + rejected + errors``."""

    name: str
    taken: int
    """Clips that the stage before has kept."""
    added: int = 0
    """Clips more than that, because files were cut into scenes."""
    kept: int = 0
    rejected: int = 0
    errors: int = 0
    sources: int = 0
    """Inputs that have a row after the stage; the same number everywhere."""
    reasons: Counter = field(default_factory=Counter)
    """(status, reason) -> clips that ended in this stage."""


def count_stages(shards: Mapping[str, list[Shard]]) -> list[StageCount]:
    """Count every stage from its shards.

    Raises:
        RuntimeError: an input has no row, or a clip vanished; a bug, after which no number could be trusted.
    """
    counts: list[StageCount] = []
    for name, of_stage in shards.items():
        count = _count(name, of_stage, counts[-1].kept if counts else None)
        if counts and (count.sources != counts[0].sources or (count.added and name != "scenes") or count.added < 0):
            raise RuntimeError(f"clips were lost or made up in the stage {name}: {count}, after {counts[-1]}")
        counts.append(count)
    return counts


def _count(name: str, shards: list[Shard], taken: int | None) -> StageCount:
    count = StageCount(name=name, taken=0)
    for shard in shards:
        found = shard.columns(["source_id", "status", "stage", "reason"])
        count.sources += len(set(found["source_id"]))
        for status, stage, reason in zip(found["status"], found["stage"], found["reason"], strict=True):
            count.kept += status == KEPT
            if stage == name:
                count.rejected += status == REJECTED
                count.errors += status == ERROR
                count.reasons[status, reason] += 1
    out = count.kept + count.rejected + count.errors
    count.taken = out if taken is None else taken
    count.added = out - count.taken
    return count
