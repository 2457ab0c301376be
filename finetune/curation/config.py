"""What decides which clips a curated set holds. Nothing else does: not the engine, nor how the work is cut up."""

from dataclasses import dataclass
from typing import Literal

from vsr.errors import UsageError

METRIC_COLUMNS = {
    "clipiqa": ("clipiqa",),
    "fastervqa": ("fastervqa",),
    "dover": ("dover_technical", "dover_aesthetic", "dover_overall"),
}
"""Metric -> the columns that it fills."""
SCORE_COLUMNS = tuple(column for columns in METRIC_COLUMNS.values() for column in columns)


@dataclass(frozen=True, kw_only=True)
class ColumnMinimum:
    """A filter on a number that the input CSV states."""

    column: str
    """Its name in the CSV, for example "aesthetic score"."""
    at_least: float


@dataclass(frozen=True, kw_only=True)
class MetadataConfig:
    """What the header, or the CSV, must say."""

    short_side_over: int
    """Pixels that the shorter side must exceed; the paper: 720."""
    frames_over: int
    """Frames that the file must exceed; the paper: 50."""
    square_pixels: bool
    """Reject files whose pixels are not square."""
    csv: tuple[ColumnMinimum, ...] = ()
    """Filters on columns of the CSV; a row without the number is rejected."""


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """Where files are cut."""

    detect: bool
    """False: a file is one scene; it is decoded and checked all the same."""
    adaptive_threshold: float
    """Of PySceneDetect's AdaptiveDetector: how far a frame must differ more than its neighbours do."""
    min_scene_frames: int
    """Frames between two cuts, for the detector."""
    trim: int
    """Frames left out on each side of a cut."""
    min_frames: int
    """Shorter scenes are rejected; the paper: 50."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Scores in [0, 1] that a scene must reach; a column without a number decides nothing."""

    clipiqa: float | None = None
    fastervqa: float | None = None
    dover_technical: float | None = None
    dover_aesthetic: float | None = None
    dover_overall: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Scores without reference, and how they decide."""

    metrics: tuple[Literal["clipiqa", "fastervqa", "dover"], ...]
    """What is computed; each name can be left out, and an empty list skips the stage."""
    clipiqa_frames: int
    """Frames per scene that CLIP-IQA sees, evenly spread."""
    mode: Literal["absolute", "quantile"]
    """absolute: at_least is the threshold. quantile: one quantile, the same for all columns that at_least names, such
    that target_count scenes pass."""
    target_count: int
    """Scenes that pass on to the motion stage in mode quantile."""
    at_least: Thresholds
    seed: int = 0
    """Of the fragments of FasterVQA and DOVER."""

    def __post_init__(self) -> None:
        filled = {column for name in self.metrics for column in METRIC_COLUMNS[name]}
        for column in self.deciding:
            if self.metrics and column not in filled:
                raise UsageError(f"at_least: {column} decides, but no metric computes it; add one or remove it")
        if self.target_count < 1 or self.clipiqa_frames < 1:
            raise UsageError("target_count and clipiqa_frames: expected at least 1")

    @property
    def deciding(self) -> tuple[str, ...]:
        """Columns whose thresholds decide."""
        return tuple(column for column in SCORE_COLUMNS if getattr(self.at_least, column) is not None)


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Motion score and the area that moves. Speeds are in pixels per frame on a short side of 720."""

    use: bool
    """False: the stage is skipped and the box is the whole frame."""
    flow: Literal["auto", "raft", "dis"]
    """auto: RAFT if its weights are there, else OpenCV's DIS; what was taken is in the manifest."""
    pairs: int
    """Pairs of frames per scene, evenly spread."""
    gap_seconds: float
    """Distance of the two frames of a pair."""
    flow_short_side: int
    """Frames are reduced to that short side before the flow is computed."""
    min_score: float
    """Mean speed below which a scene has no motion."""
    max_score: float | None = None
    """Mean speed above which a scene is rejected."""
    over_pairs: Literal["max", "mean", "q90"]
    """How the maps of the pairs become the motion map M: max covers all that was swept, mean only where it lasted."""
    threshold: float
    """tau: speed from which a pixel moves."""
    opening: int
    """Side of the square that a moving area must hold, in pixels of the flow; 0 keeps stray pixels."""
    min_component: float
    """Fraction of the frame below which a connected moving area is ignored."""
    padding: int
    """p: pixels of the source added on each side of the box."""
    align: int
    """Boxes grow to multiples of this where the frame has room, else to even sizes."""
    min_short_side: int
    """Boxes with a shorter side are rejected; the paper: 720."""

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.flow_short_side < 16 or self.align < 2 or self.align % 2:
            raise UsageError("expected pairs >= 1, flow_short_side >= 16 and an even align >= 2")


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What one file may cost in one stage."""

    seconds: float
    """After which the process that reads it is killed."""
    attempts: int
    """After that many crashes or time-outs the file is recorded as an error."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.attempts < 1:
            raise UsageError(f"expected seconds > 0 and attempts >= 1, got {self.seconds} and {self.attempts}")


@dataclass(frozen=True, kw_only=True)
class CurationConfig:
    """One file of configs/curation/."""

    metadata: MetadataConfig
    scenes: ScenesConfig
    quality: QualityConfig
    motion: MotionConfig
    limits: LimitsConfig
