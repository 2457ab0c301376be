"""Build a training set like HQ-VSR out of a folder of videos, or out of the rows of a CSV.

    python -m finetune.scripts.curate --input DIR_OR_CSV --output DIR --config configs/curation/hq_vsr.yaml
        [--root DIR] [--engine serial|process|ray] [--stages validate scenes quality motion] [--materialize] [--dry_run]
        [section.field=value ...]

Validates, splits into scenes, scores, and crops to what moves. OUTPUT/manifest.parquet has a row for every clip, kept
or not, with the reason; kept.jsonl lists the kept ones, report.md shows them. Train with
data.videos=OUTPUT/manifest.parquet: clips are cut and cropped while training, nothing is encoded again. The same
command again does what is left; after a change of the configuration, what depends on it; after one of the inputs, all
from the first shard on that is not as it was. --engine ray
uses this machine, or the cluster that RAY_ADDRESS names. Exit codes: 0 all clips were judged; 7 some could not be;
2 wrong usage; 3 no input; 5 weights are missing; 130 interrupted.
"""

import argparse
import fcntl
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from finetune.curation.config import CurationConfig
from finetune.curation.engines import make_engine
from finetune.curation.inputs import list_inputs
from finetune.curation.pipeline import Pipeline
from finetune.curation.results import finish
from finetune.curation.runs import RunLog
from finetune.curation.stage import Setup
from finetune.curation.stages import ORDER
from finetune.curation.versions import check_weights, resolved, versions_of
from finetune.typed_yaml import dump_yaml, read_yaml
from vsr.errors import INTERRUPTED, InputError, UsageError, VSRError

log = logging.getLogger("curate")
SHARD_SIZES = range(1, 1025)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--input", type=Path, required=True, help="folder of videos, searched recursively, or CSV with a column video")
    add("--output", type=Path, required=True, help="folder of the results")
    add("--config", type=Path, required=True, help="YAML file of configs/curation/")
    add("--root", type=Path, help="folder that the paths of the CSV are relative to (default: that of the CSV)")
    add("--engine", choices=("serial", "process", "ray"), default="process", help="where the work is done")
    add("--workers", type=int, help="clips at once (default: one a core; at most 8 a GPU, with Ray 1 / --gpu_share)")
    add("--gpu_share", type=float, default=0.5, help="part of a GPU per worker of Ray (default: 0.5)")
    add("--shard_size", type=int, default=256, help="inputs per shard; what a killed run loses (default: 256)")
    add("--stages", nargs="+", choices=ORDER, default=list(ORDER), help="the first ones, to look at what they leave")
    add("--device", default="auto", help="of the networks: auto, cpu, cuda (default: auto)")
    add("--sheets", type=int, default=20, help="contact sheets in the report (default: 20)")
    add("--materialize", action="store_true", help="also write the kept clips as files, to OUTPUT/clips")
    add("--dry_run", action="store_true", help="say what would be done; opens no video and writes nothing")
    add("overrides", nargs="*", metavar="section.field=value", help="fields of the configuration")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Curate; returns the exit code."""
    args = parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        setup = _setup(args)
        if args.dry_run:
            return _print_plan(args, setup)
        setup.output.mkdir(parents=True, exist_ok=True)
        with _locked(setup.output):
            return _curate(args, setup)
    except VSRError as error:
        log.error("error: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on")
        return INTERRUPTED


def _setup(args: argparse.Namespace) -> Setup:
    """Check everything that can be checked before a video is opened."""
    if tuple(args.stages) != ORDER[: len(args.stages)]:
        raise UsageError(f"--stages: a stage needs all before it; give the first ones of {' '.join(ORDER)}")
    if args.materialize and len(args.stages) < len(ORDER):
        raise UsageError("--materialize writes clips that all stages have kept; leave --stages out")
    if args.engine == "serial" and (args.workers or 1) > 1:
        raise UsageError("--engine serial is one worker; leave --workers out, or use --engine process")
    if args.shard_size not in SHARD_SIZES or (args.workers or 1) < 1 or not 0 < args.gpu_share <= 1 or args.sheets < 0:
        raise UsageError("expected --shard_size 1 to 1024, --workers from 1, --gpu_share over 0 to 1, --sheets from 0")
    if not args.input.exists():
        raise InputError(f"{args.input}: no such folder or CSV")
    if args.input.is_dir() and args.root is not None:
        raise UsageError("--root is for a CSV; a folder is its own root")
    root = args.input if args.input.is_dir() else args.root or args.input.parent
    config = resolved(read_yaml(args.config, CurationConfig, args.overrides))
    check_weights(config, args.stages)
    return Setup(root=root.absolute(), output=args.output.absolute(), config=config, device=args.device)


def _curate(args: argparse.Namespace, setup: Setup) -> int:
    versions = versions_of(setup.config, args.stages)
    (setup.output / "run.yaml").write_text(dump_yaml(setup.config), encoding="utf-8")
    facts = {"engine": args.engine, "workers": args.workers, "stages": args.stages, "versions": versions}
    with RunLog(setup.output / "runs.jsonl", **facts) as runs:
        pipeline = Pipeline(setup, args.input.absolute(), versions, args.shard_size, runs)
        with closing(make_engine(args.engine, setup, args.workers, args.gpu_share)) as engine:
            shards = pipeline.run(args.stages, engine)
            complete = len(args.stages) == len(ORDER)
            return finish(
                setup,
                shards,
                pipeline.thresholds,
                versions,
                engine,
                sheets=args.sheets if complete else 0,
                materialize=args.materialize,
            )


def _print_plan(args: argparse.Namespace, setup: Setup) -> int:
    inputs = list_inputs(args.input.absolute(), setup.root, setup.config.metadata, setup.output)
    statuses = [row["status"] for row in inputs]
    shards = -(-len(statuses) // args.shard_size)
    print(f"{len(statuses)} inputs, {statuses.count('kept')} of them there, in {shards} shards of {args.shard_size}")
    print(f"stages: {' '.join(args.stages)}; engine: {args.engine}")
    print(f"metrics: {' '.join(setup.config.quality.metrics) or 'none'}; flow: {setup.config.motion.flow}")
    print(f"would write {setup.output}/manifest.parquet")
    return 0


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Refuse a second run in the same folder; a killed run holds nothing."""
    with (output / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{output}: another run is writing there; wait, or give another --output") from error
        yield


if __name__ == "__main__":
    sys.exit(main())
