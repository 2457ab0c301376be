"""How a run scores: everything besides the clips and the names of the metrics."""

from dataclasses import dataclass
from typing import Literal, get_args

from vsr.errors import UsageError
from vsr.video_io.probe import Untagged

Align = Literal["none", "topleft", "center"]
Convention = Literal["evalcrafter", "strict"]
FlowName = Literal["raft", "raft_small", "dis"]
Sampling = Literal["vqa_py", "dataset"]


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Settings of `score`; the defaults are those of the papers' tables."""

    crop: int = 0
    """Pixels left out along each border, for the full-reference metrics."""
    test_y_channel: bool = False
    """PSNR and SSIM compare the limited-range BT.601 luma (instead of RGB and of the Y of YIQ)."""
    every: int = 1
    """Score every k-th frame only; all frames are still decoded and counted."""
    align: Align = "none"
    """What to do with sizes that differ: fail, or crop both to the common size."""
    batch: int = 1
    """Frames that a metric gets at a time."""
    device: str = "cpu"
    ewarp: Convention = "evalcrafter"
    """Definition of E*warp."""
    flow: FlowName = "raft"
    """Where E*warp has its motion from; ``dis`` needs no weights."""
    sampling: Sampling = "vqa_py"
    """Frames that FasterVQA looks at: as its command line or as its evaluation on data sets."""
    seed: int = 0
    """Of the fragments of DOVER and FasterVQA; together with the name of a clip."""
    allow_short: bool = False
    """DOVER and FasterVQA take clips of fewer than 32 frames, and see some of them more than once."""
    untagged: Untagged = "auto"
    """The YUV matrix of videos that do not state theirs, see `vsr.video_io.probe`."""

    def __post_init__(self) -> None:
        """Raise UsageError for a setting out of range."""
        if self.crop < 0:
            raise UsageError(f"crop must be 0 or more pixels, got {self.crop}")
        for name in ("every", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more frames, got {getattr(self, name)}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more, got {self.seed}")
        choices = {"align": Align, "ewarp": Convention, "flow": FlowName, "sampling": Sampling, "untagged": Untagged}
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                raise UsageError(f"{name} must be one of {', '.join(get_args(choice))}, got {getattr(self, name)}")
