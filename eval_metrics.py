"""Score restored videos against their ground truth.

    python eval_metrics.py --gt datasets/demo/GT-Video --pred results/demo --metrics psnr,ssim

Clips pair by file name without extension. A clip that is missing, unreadable or of another size or length is named and
part of no average. Exit codes: 0 all scored, 7 some failed, 3 nothing to score, 2 wrong usage.

This file turns arguments into one call; the work is in vsr/metrics/.
"""

import argparse
import sys
from pathlib import Path

from vsr.errors import VSRError
from vsr.metrics import score


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--gt", type=Path, required=True, help="ground truth: a folder of videos, frame folders or images, or one clip")
    add("--pred", type=Path, required=True, help="restored: the same")
    add("--metrics", type=_names, default=["psnr", "ssim"], help="comma-separated (default: psnr,ssim)")
    add("--out", type=Path, help="JSON report, a file or a folder (default: metrics.json in the folder of --pred)")
    add("--crop", type=int, default=0, help="pixels left out along each border")
    add("--test_y_channel", action="store_true", help="score the limited-range BT.601 luma")
    add("--every", type=int, default=1, help="score every k-th frame")
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def main(argv: list[str] | None = None) -> int:
    """Score, print the table, store the report; returns the exit code."""
    args = parse_args(argv)
    settings = {"crop": args.crop, "test_y_channel": args.test_y_channel, "every": args.every}
    try:
        report = score(args.pred, args.gt, args.metrics, on_clip=_announce, **settings)
        print(report.table())
        out = _report_path(args)
        report.write(out)
    except VSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"report: {out}", file=sys.stderr)
    return report.exit_code


def _report_path(args: argparse.Namespace) -> Path:
    if args.out is None:
        return (args.pred if args.pred.is_dir() else args.pred.parent) / "metrics.json"
    return args.out if args.out.suffix.lower() == ".json" else args.out / "metrics.json"


def _announce(name: str) -> None:
    print(f"scoring {name}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
