"""Which prediction belongs to which ground truth: by stem, and every name that does not pair up is a failure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vsr.errors import InputError
from vsr.metrics.report import Failure
from vsr.video_io import find_inputs


@dataclass(frozen=True)
class Pair:
    """A clip and its ground truth, each a video file, a folder of frames or an image."""

    name: str
    pred: Path
    gt: Path | None
    """None: there is none, only metrics without reference."""


def stem_of(path: Path) -> str:
    """What a clip pairs by: its name without extension; a folder has none, so that scene.01 is a whole name."""
    return path.name if path.is_dir() else path.stem


def pair_by_stem(pred: Path, gt: Path | None) -> tuple[list[Pair], list[Failure]]:
    """Pair the clips of two folders by file name without extension; two single clips pair whatever they are called.

    Without ground truth every clip is a pair of its own.

    Returns:
        The pairs in the order of their names, and one failure for each name that exists on one side only or that
        several files of a side share.

    Raises:
        InputError: a folder is missing or has nothing to score.
    """
    for side in (pred, gt):
        if side is not None and not side.exists():
            raise InputError(f"not found: {side}; expected a folder of clips or one clip")
    preds = find_inputs(pred)
    if gt is None:
        return _alone(_by_stem(preds))
    gts = find_inputs(gt)
    if preds == [pred] and gts == [gt]:
        return [Pair(pred.stem, pred, gt)], []
    return _match(_by_stem(preds), _by_stem(gts))


def _match(preds: dict[str, list[Path]], gts: dict[str, list[Path]]) -> tuple[list[Pair], list[Failure]]:
    pairs, failures = [], []
    for name in sorted(preds.keys() | gts.keys()):
        pred, gt = preds.get(name, []), gts.get(name, [])
        if len(pred) == len(gt) == 1:
            pairs.append(Pair(name, pred[0], gt[0]))
        else:
            failures.append(Failure(name=name, reason=_why_unpaired(pred, gt)))
    return pairs, failures


def _alone(preds: dict[str, list[Path]]) -> tuple[list[Pair], list[Failure]]:
    pairs = [Pair(name, paths[0], None) for name, paths in sorted(preds.items()) if len(paths) == 1]
    failures = [
        Failure(name=name, reason=f"several files of one name: {_names(paths)}")
        for name, paths in sorted(preds.items())
        if len(paths) > 1
    ]
    return pairs, failures


def _why_unpaired(pred: list[Path], gt: list[Path]) -> str:
    if not pred:
        return f"no prediction for {_names(gt)}"
    if not gt:
        return f"no ground truth for {_names(pred)}"
    return f"several files of one name: predictions {_names(pred)}, ground truth {_names(gt)}"


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    by_stem = defaultdict(list)
    for path in paths:
        by_stem[stem_of(path)].append(path)
    return by_stem
