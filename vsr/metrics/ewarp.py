"""E*warp: how far a frame is from its successor warped onto it, times 1000. Lower is better; still or blurred video
scores perfectly, so it says nothing without a metric of fidelity beside it.

Two definitions, a factor of three and more apart:

- ``evalcrafter``: of EvalCrafter's public code, which DOVE's authors used. Half resolution, squares summed over the
  channels, motion that leaves the frame compared with its border. That its numbers equal DOVE's table is unproven.
- ``strict``: full resolution (half above 1.5 megapixels), mean over the channels, motion out of the frame left out.

Source: Lai et al., Learning blind video temporal consistency (2018); EvalCrafter, metrics/RAFT/optical_flow_scores.py.
Deviation: EvalCrafter gives RAFT frames that were divided by 255 twice; here it sees the frames as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.memory import naming_memory
from vsr.metrics.flow import Flow, dis_flow, raft
from vsr.metrics.metric import Clip, Metric, Scorer, Start, Values
from vsr.metrics.settings import Convention, ScoreSettings
from vsr.metrics.weights import RAFT, Weight

STRICT_FULL_PIXELS = 1_500_000
"""Above, the memory of RAFT's correlations grows out of bounds: 4 GB at 1080p, 67 GB at 4K."""


def ewarp_metric() -> Metric:
    """E*warp as the scoring loop takes it."""
    return Metric(
        build=_build, columns=("ewarp",), define=_define, lower_better=True, weights=_weights, packages=("torchvision",)
    )


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Fetch every pixel from where the flow points to: bilinear, beyond the border the border.

    Args:
        x: (N, C, H, W).
        flow: (N, 2, H, W), (x, y) in pixels.
    """
    height, width = x.shape[-2:]
    columns, rows = _targets(flow)
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Pixels whose motion is believed: forward and backward flow agree, and the flow is smooth there.

    |F + B'|^2 <= 0.01 (|F|^2 + |B'|^2) + 0.5 with B' = warp(B, F), and |grad F|^2 <= 0.01 |F|^2 + 0.002.

    Args:
        forward, backward: (N, 2, H, W) in pixels, from a frame to the next and back.

    Returns:
        (N, H, W) bool.
    """
    warped = warp(backward, forward)
    speed = forward.square().sum(dim=1)
    occluded = (forward + warped).square().sum(dim=1) > 0.01 * (warped.square().sum(dim=1) + speed) + 0.5
    return ~(occluded | (_gradient(forward) > 0.01 * speed + 0.002))


def warping_error(a: Tensor, b: Tensor, forward: Tensor, backward: Tensor, convention: Convention) -> Tensor:
    """Mean squared difference of frame ``a`` and the next frame ``b`` warped onto it, over the visible pixels.

    Args:
        a, b: (N, 3, H, W) in [0, 1].
        forward, backward: (N, 2, H, W), the flow from a to b and from b to a.

    Returns:
        (N,), not yet times 1000; 0 where no pixel is visible.
    """
    mask = visible(forward, backward)
    if convention == "strict":
        mask &= _stays_inside(forward)
    squares = (warp(b, forward) - a).square()
    squares = squares.sum(dim=1) if convention == "evalcrafter" else squares.mean(dim=1)
    return (squares * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


def at_metric_size(x: Tensor, convention: Convention) -> Tensor:
    """Frames of the size that the convention looks at; halved bilinearly, without a low-pass."""
    height, width = x.shape[-2:]
    if convention == "strict" and height * width <= STRICT_FULL_PIXELS:
        return x
    size = (max(height // 2, 1), max(width // 2, 1))
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class WarpingError:
    """E*warp of one clip, from every k-th pair of successive frames."""

    def __init__(self, flow: Flow, settings: ScoreSettings) -> None:
        self._flow, self._settings = flow, settings
        self._last: Tensor | None = None
        self._index = 0
        self._values: list[float] = []

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor | None) -> None:
        before, self._last = self._last, at_metric_size(x.to(self._settings.device), self._settings.ewarp)
        if before is not None and self._index % self._settings.every == 0:
            with naming_memory(f"E*warp of {x.shape[-1]}x{x.shape[-2]} frames", "--flow dis"):
                self._values.append(1000 * self._error(before, self._last))
        self._index += before is not None

    def values(self) -> Values:
        if not self._values:
            raise ValueError("E*warp needs at least two frames, got one")
        return {"ewarp": self._values}

    def _error(self, a: Tensor, b: Tensor) -> float:
        forward, backward = self._flow(torch.cat([a, b]), torch.cat([b, a])).chunk(2)
        return warping_error(a, b, forward, backward, self._settings.ewarp).item()


def _build(settings: ScoreSettings) -> Start:
    if settings.flow == "dis":
        flow = dis_flow
    else:
        (weight,) = _weights(settings)
        flow = raft(weight.path, settings.device, small=settings.flow == "raft_small")

    def start(clip: Clip) -> Scorer:
        return WarpingError(flow, settings)

    return start


def _weights(settings: ScoreSettings) -> tuple[Weight, ...]:
    name = _flow_name(settings)
    return (RAFT[name],) if name in RAFT else ()


def _flow_name(settings: ScoreSettings) -> str:
    raft_large = {"evalcrafter": "raft_large_C_T_V1", "strict": "raft_large_C_T_SKHT_V2"}[settings.ewarp]
    return {"raft": raft_large, "raft_small": "raft_small_C_T_V2", "dis": "OpenCV DIS, medium"}[settings.flow]


def _define(settings: ScoreSettings) -> str:
    how = {
        "evalcrafter": "half resolution, squares summed over RGB, targets outside the frame take its border; "
        "EvalCrafter's arithmetic, equality with published tables is unproven",
        "strict": "full resolution, half above 1.5 megapixels, mean over RGB, targets outside the frame left out",
    }[settings.ewarp]
    return (
        f"1000 x warping error, convention {settings.ewarp}: {how}; flow of the scored video by {_flow_name(settings)}"
        "; mean of pairs of successive frames, then of clips"
    )


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H, W) columns and rows that the pixels move to."""
    height, width = flow.shape[-2:]
    options = {"device": flow.device, "dtype": flow.dtype}
    rows, columns = torch.meshgrid(torch.arange(height, **options), torch.arange(width, **options), indexing="ij")
    return columns + flow[:, 0], rows + flow[:, 1]


def _stays_inside(flow: Tensor) -> Tensor:
    height, width = flow.shape[-2:]
    columns, rows = _targets(flow)
    return (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)


def _gradient(flow: Tensor) -> Tensor:
    """Squared forward differences of both components, 0 beyond the last column and row: (N, 2, H, W) -> (N, H, W)."""
    along_x = F.pad(flow.diff(dim=-1), (0, 1)).square().sum(dim=1)
    along_y = F.pad(flow.diff(dim=-2), (0, 0, 0, 1)).square().sum(dim=1)
    return along_x + along_y
