"""Score restored videos, against their ground truth or without one.

    python eval_metrics.py --gt datasets/demo/GT-Video --pred results/demo --metrics psnr,ssim
    python eval_metrics.py --doctor

Clips pair by file name without extension. A clip that is missing, unreadable or of another size or length is named and
part of no average. Exit codes: 0 all scored, 7 some failed, 3 nothing to score, 2 wrong usage, 5 weights are missing,
130 interrupted, with a report of what had been scored.

This file turns arguments into one call; the work is in vsr/metrics/.
"""

import argparse
import sys
from pathlib import Path

from vsr.devices import choose_device
from vsr.errors import INTERRUPTED, ModelError, UsageError, VSRError
from vsr.metrics import METRICS, ScoreSettings, score
from vsr.metrics.catalog import check_names, doctor, download_missing, listing
from vsr.metrics.report import check_writable
from vsr.metrics.scoring import ScoringInterrupted
from vsr.progress import printable
from vsr.video_io import REPORT, find_inputs

UNTAGGED = "matrix of video without colour tags; auto: BT.709 from 720 rows up"
BATCH = 8
"""Frames at a time with --batch_mode."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, defaults = parser.add_argument, ScoreSettings()
    add("--gt", type=Path, help="ground truth: a folder of videos, frame folders or images, or one clip")
    add("--pred", type=Path, help="restored: the same; not needed with --doctor, --download and --list")
    add("--metrics", type=_names, help="comma-separated (default: psnr,ssim; without --pred: all)")
    add("--out", type=Path, help="JSON report, a file or a folder (default: metrics.json in --pred, or beside a clip)")
    add("--csv", type=Path, help="the table as CSV as well")
    add("--crop", type=int, default=0, help="pixels left out along each border, for full-reference metrics")
    add("--test_y_channel", action="store_true", help="PSNR and SSIM of the limited-range BT.601 luma")
    add("--every", type=int, default=1, help="score every k-th frame (E*warp: pair of frames)")
    add("--align", choices=("none", "topleft", "center"), default="none", help="cut sizes that differ (default: fail)")
    add("--is_center", action="store_true", help="the same as --align center")
    add("--batch_mode", action="store_true", help=f"{BATCH} frames at a time; the same scores")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--ewarp", choices=("evalcrafter", "strict"), default=defaults.ewarp, help="definition of E*warp")
    add("--flow", choices=("raft", "raft_small", "dis"), default=defaults.flow, help="for E*warp; dis needs no weights")
    add("--sampling", choices=("vqa_py", "dataset"), default=defaults.sampling, help="frames that FasterVQA looks at")
    add("--seed", type=int, default=0, help="of the fragments of DOVER and FasterVQA")
    add("--allow_short", action="store_true", help="DOVER and FasterVQA of clips below 32 frames; some are seen twice")
    add("--untagged", choices=("auto", "601", "709"), default="auto", help=UNTAGGED)
    add("--list", action="store_true", help="name all metrics and what they mean, and stop")
    add("--doctor", action="store_true", help="say for each metric what is there and what is missing, and stop")
    add("--download", action="store_true", help="fetch missing weights; nothing else uses the network")
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def main(argv: list[str] | None = None) -> int:
    """Do what the flags say; returns the exit code."""
    args = parse_args(argv)
    try:
        return _run(args)
    except VSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run(args: argparse.Namespace) -> int:
    if args.list:
        print(listing())
        return 0
    settings, metrics = _settings(args), _metrics(args)
    check_names(metrics)
    if args.download:
        for line in download_missing(metrics, settings):
            print(line, file=sys.stderr)
    if args.doctor or (args.download and args.pred is None):
        text, fine = doctor(metrics, settings)
        print(text)
        return 0 if fine else ModelError.exit_code
    if args.pred is None:
        raise UsageError("nothing to score: give --pred")
    return _score(args, metrics, settings)


def _score(args: argparse.Namespace, metrics: list[str], settings: ScoreSettings) -> int:
    """Score, print the table, store the report: after Ctrl-C that of the clips before it."""
    out, code = _report_path(args), INTERRUPTED
    for path in filter(None, (out, args.csv)):
        check_writable(path)
    try:
        report = score(args.pred, args.gt, metrics, settings=settings, on_clip=_announce)
        code = report.exit_code
    except ScoringInterrupted as interrupted:
        report = interrupted.report
    print(printable(report.table()))
    report.write(out)
    if args.csv:
        report.write_csv(args.csv)
    print(f"report: {out}", file=sys.stderr)
    return code


def _metrics(args: argparse.Namespace) -> list[str]:
    if args.metrics is not None:
        return args.metrics
    return ["psnr", "ssim"] if args.pred and not args.doctor else list(METRICS)


def _settings(args: argparse.Namespace) -> ScoreSettings:
    if args.is_center and args.align == "topleft":
        raise UsageError("--is_center contradicts --align topleft")
    return ScoreSettings(
        crop=args.crop,
        test_y_channel=args.test_y_channel,
        every=args.every,
        align="center" if args.is_center else args.align,
        batch=BATCH if args.batch_mode else 1,
        device=str(choose_device(args.device)),
        ewarp=args.ewarp,
        flow=args.flow,
        sampling=args.sampling,
        seed=args.seed,
        allow_short=args.allow_short,
        untagged=args.untagged,
    )


def _report_path(args: argparse.Namespace) -> Path:
    if args.out is None:  # beside a clip, even if that is a folder of frames: only frames belong into it
        is_folder = args.pred.is_dir() and ((args.pred / REPORT).is_file() or find_inputs(args.pred) != [args.pred])
        return (args.pred if is_folder else args.pred.parent) / "metrics.json"
    return args.out if args.out.suffix.lower() == ".json" else args.out / "metrics.json"


def _announce(name: str) -> None:
    print(f"scoring {name}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
