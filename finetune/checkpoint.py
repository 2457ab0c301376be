"""Checkpoints: complete or not there, the oldest deleted after a new one exists, found by path or as latest."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from finetune.shard_metadata import refuse_foreign_metadata
from vsr.errors import UsageError

NAME = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.pt"


def list_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [path for path in run.glob("checkpoint-*") if NAME.fullmatch(path.name) and (path / STATE).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Steps done, by the name of the folder."""
    return int(NAME.fullmatch(checkpoint.name).group(1))


def find_checkpoint(run: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from; None: a fresh start.

    Args:
        resume: None, "latest", or a path.

    Raises:
        UsageError: the path is no checkpoint, or the run's folder has checkpoints that do not lead to it.
    """
    existing = list_checkpoints(run)
    if resume is None and existing:
        raise UsageError(
            f"{run} has checkpoints of an earlier run, the newest {existing[-1].name}; go on with resume=latest, or "
            f"give another output_dir"
        )
    if resume in (None, "latest"):
        return existing[-1] if existing else None
    path = Path(resume)
    if not NAME.fullmatch(path.name) or not (path / STATE).is_file():
        raise UsageError(f"resume: {path} is not a checkpoint: expected a folder checkpoint-N with {STATE} in it")
    if existing and (path.resolve().parent != run.resolve() or step_of(path) < step_of(existing[-1])):
        raise UsageError(
            f"resume: {run} has {existing[-1].name}, which does not lead to {path}; move it away, or give another "
            f"output_dir"
        )
    return path


def save_checkpoint(accelerator: Accelerator, run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``checkpoint-STEP``; all processes call this.

    Args:
        state: what accelerate does not know: tensors and plain values.
        keep: this many checkpoints stay.
    """
    target, temporary = run / f"checkpoint-{step}", run / f".checkpoint-{step}.incomplete"
    if accelerator.is_main_process:
        for stale in run.glob(".checkpoint-*.incomplete"):  # of a run that was killed while it wrote
            shutil.rmtree(stale)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        torch.save(state, temporary / STATE)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for old in list_checkpoints(run)[:-keep]:
            shutil.rmtree(old.rename(run / f".{old.name}.incomplete"))  # killed meanwhile, it must not look complete
    accelerator.wait_for_everyone()
    return target


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> dict[str, Any]:
    """Restore what accelerate knows; return the rest."""
    refuse_foreign_metadata(checkpoint)
    accelerator.load_state(str(checkpoint))
    accelerator.step = 0  # of micro-batches: a checkpoint lies between updates, however many the run had per update
    return torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)


def trim_log(run: Path, step: int) -> None:
    """Drop what ``log.jsonl`` has after ``step``, and a last line that was cut off: the run goes on from there."""
    log = run / "log.jsonl"
    if not log.is_file():
        return
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    temporary = log.with_name(".log.jsonl.incomplete")
    temporary.write_text("".join(kept))
    temporary.replace(log)


def append_log(run: Path, entry: dict[str, Any]) -> None:
    """One line of ``log.jsonl``."""
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
