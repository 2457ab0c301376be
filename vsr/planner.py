"""Whether a file fits, how, and how long it takes: known from the model's configuration before any weights are loaded.

Predicted is the peak of tensor bytes. What the allocator, kernels and the program itself take beside them is left to
the margin of `vsr.budget`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from vsr import windows
from vsr.budget import Budget
from vsr.costs import Architecture, Cost, Weights, decode_cost, denoise_cost, encode_cost, weights
from vsr.errors import OutOfMemoryError
from vsr.plans import LESS, Ladder, Plan, ladder_for
from vsr.settings import Layout, RestoreSettings, make_layout
from vsr.windows import Grid, legal_length

PIXEL = 3 * 4
"""Bytes of a pixel of a window in host memory: three channels in float32."""
BLOCKS_HELD = 2
"""Blocks of an offloaded transformer on the device: the one that computes and the next."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a file takes."""

    plan: Plan
    device: int
    """Bytes on the device at the peak; on a CPU, in all."""
    host: int
    """Bytes in host memory beside the device; 0 on a CPU."""
    flops: Mapping[str, float] | None
    """Of all windows, by stage: "encode", "denoise", "decode"; None: the length of the file is not known."""

    def describe(self) -> str:
        """One line for people."""
        beside = f" and {self.host / 1e9:.1f} GB of host memory" if self.host else ""
        return f"{self.plan.kind}: {self.plan.describe()}; {self.device / 1e9:.1f} GB{beside}"


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Finds plans for the files of a run."""

    architecture: Architecture
    budget: Budget
    grid: Grid
    settings: RestoreSettings
    scale: float
    """Of the model, where the settings name no size."""
    offload: bool = False
    """The transformer stays in host memory whatever the plan."""

    def choose(self, height: int, width: int, frames: int | None) -> Forecast:
        """The first plan for frames of ``height`` x ``width`` that fits.

        Args:
            frames: of the file; None: not known, then one whole window is planned for.

        Raises:
            OutOfMemoryError: none fits.
        """
        plans = list(self._ladder(height, width, frames))
        for plan in plans if self._weights_fit() else []:  # counting all takes a while
            forecast = self.forecast(plan, height, width, frames)
            if self.budget.holds(forecast.device, forecast.host):
                return forecast
        least = self.forecast(plans[-1], height, width, frames)
        raise OutOfMemoryError(
            f"frames of {width}x{height} do not fit: even with {least.plan.describe()} they need "
            f"{self._amounts(least.device, least.host)}, and for tensors there are "
            f"{self._amounts(self.budget.device, self.budget.host)}; use {LESS}"
        )

    def _amounts(self, device: int | None, host: int | None) -> str:
        if self.architecture.device == "cpu":
            return _gigabytes(device)
        return f"{_gigabytes(device)} on the device and {_gigabytes(host)} beside it"

    def forecast(self, plan: Plan, height: int, width: int, frames: int | None) -> Forecast:
        """What frames of ``height`` x ``width`` take with a plan; see `choose`."""
        settings = replace(self.settings, tile=plan.tile) if plan.tile else self.settings
        layout = make_layout(settings, self.grid, height, width, self.scale)
        whole = self._window(layout, frames)
        window = min(plan.window or whole, whole)
        stages = self._stages(plan, layout, window)
        device, host = self._peak(plan, layout, stages, frames, window)
        tiles = len(layout.rows) * len(layout.cols)
        count = tiles * self._count_windows(plan, layout, frames, whole) if frames else 0
        flops = {name: count * cost.flops for name, cost in stages.items()} if frames else None
        return Forecast(plan=plan, device=device, host=host, flops=flops)

    def _ladder(self, height: int, width: int, frames: int | None) -> Ladder:
        layout = make_layout(self.settings, self.grid, height, width, self.scale)
        return ladder_for(
            layout,
            self.settings.tile_overlap_on(self.grid),
            self.grid.multiple,
            self.grid.step,
            frames=self._window(layout, frames),
            spills=self.architecture.device == "cuda",
            offload=self.offload,
        )

    def _window(self, layout: Layout, frames: int | None) -> int:
        """Frames of the longest window."""
        length = legal_length(frames, self.grid.step) if frames else layout.window or self.grid.step + 1
        return min(layout.window or length, length)

    def _count_windows(self, plan: Plan, layout: Layout, frames: int, whole: int) -> int:
        count = windows.count_windows(frames, layout.window, layout.overlap, self.grid.step)
        if not plan.window or plan.window >= whole:
            return count
        shorter = replace(self.settings, window=plan.window, overlap=None)
        overlap = shorter.checked_overlap(self.grid)
        return count * windows.count_windows(whole, plan.window, overlap, self.grid.step)

    def _weights_fit(self) -> bool:
        """Whether the device has room for them, with or without a host that keeps them."""
        known = weights(self.architecture)
        held = known.outside + BLOCKS_HELD * known.block if self.architecture.device == "cuda" else known.transformer
        return self.budget.holds(known.vae + held, 0)

    def _stages(self, plan: Plan, layout: Layout, window: int) -> dict[str, Cost]:
        size = (self.architecture, window, *layout.tile)
        return {
            "encode": encode_cost(*size, plan.strip_rows),
            "denoise": denoise_cost(*size),
            "decode": decode_cost(*size, plan.strip_rows),
        }

    def _peak(
        self, plan: Plan, layout: Layout, stages: dict[str, Cost], frames: int | None, window: int
    ) -> tuple[int, int]:
        """Bytes on the device and beside it."""
        known = weights(self.architecture)
        on_device = max(self._on_device(name, cost, plan, known) for name, cost in stages.items())
        beside = PIXEL * layout.padded[0] * layout.padded[1] * self._frames_held(layout, frames, window)
        if self.architecture.device == "cpu":
            return on_device + beside, 0
        caches = _pinned(stages.values()) if plan.host_caches else 0
        beside += PIXEL * window * layout.tile[0] * layout.tile[1] + caches
        return on_device, beside + (known.pinned if plan.offload else 0)

    def _frames_held(self, layout: Layout, frames: int | None, window: int) -> int:
        """Of the output size, in float32, while the networks run."""
        whole = self._window(layout, frames)
        before = whole if frames is None or frames > whole else 0  # the result of the window before
        parts = whole + window if window < whole else 0  # finished ones of a window that is cut again, and the last
        return 2 * window + before + parts  # of this window what goes in and what comes out

    def _on_device(self, stage: str, cost: Cost, plan: Plan, known: Weights) -> int:
        needed = cost.bytes_with_host_caches if plan.host_caches else cost.bytes
        if not plan.offload or self.architecture.device == "cpu":
            return needed + known.vae + known.transformer
        blocks = known.outside + BLOCKS_HELD * known.block if stage == "denoise" else 0
        return needed + known.vae + blocks


def _pinned(stages: Iterable[Cost]) -> int:
    """Bytes of what the stages keep in host memory; torch gives the blocks of one to the next, size by size."""
    kept = reduce(or_, (Counter(cost.caches) for cost in stages))
    return sum(size * count for size, count in kept.items())


def _gigabytes(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / 1e9:.2f} GB"
