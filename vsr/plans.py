"""How a window can be restored in less memory, step by step: first what changes no pixel, then what does."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vsr.settings import Layout
from vsr.windows import shared_units

LESS = "a shorter --chunk_len, a smaller output (--upscale, --size), --dtype bfloat16 or a device with more memory"
"""What to do where not even the smallest plan fits."""

STRIPS = 8
"""A plan with strips has so many at the size of the output, and fewer at the lower levels of the VAE."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How windows are restored. The default is as the settings say, all at once on the device."""

    strip_rows: int | None = None
    """Rows that a layer of the VAE works on at once; None: all."""
    offload: bool = False
    """The transformer's weights wait in host memory."""
    host_caches: bool = False
    """What the VAE's convolutions keep for their next batch of frames waits in host memory."""
    window: int | None = None
    """A window is cut again into windows of so many frames; None: it is not."""
    tile: tuple[int, int] | None = None
    """Largest height and width of a tile; None: as the settings say."""

    @property
    def kind(self) -> str:
        """ "tiled" where pixels differ from what was asked for; "host-spilled": the same, but slower; "exact"."""
        if self.window or self.tile:
            return "tiled"
        return "host-spilled" if self.host_caches or self.offload else "exact"

    @property
    def position(self) -> tuple:
        """Among the plans for one file, those later in the order have a larger one."""
        tile, window = (-math.prod(self.tile) if self.tile else -math.inf), -(self.window or math.inf)
        return tile, window, self.host_caches, self.offload, self.strip_rows is not None

    def describe(self) -> str:
        """One line for people."""
        parts = [
            f"the VAE in strips of {self.strip_rows} rows" if self.strip_rows else "",
            "the transformer in host memory" if self.offload else "",
            "what the VAE's convolutions keep in host memory" if self.host_caches else "",
            f"windows of {self.window} frames" if self.window else "",
            f"tiles of at most {self.tile[1]}x{self.tile[0]}" if self.tile else "",
        ]
        changes = " (changes pixels)" if self.kind == "tiled" else ""
        return (", ".join(filter(None, parts)) or "everything at once on the device") + changes


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The plans for one file in their order."""

    frames: int
    """In a window."""
    tile: tuple[int, int]
    """Height and width of a tile, as the settings say."""
    least_tile: tuple[int, int]
    """Height and width below which tiles are not made smaller."""
    multiple: int
    """Height and width of tiles are multiples of it."""
    step: int
    """Windows have ``step * k + 1`` frames."""
    has_strips: bool = True
    """The pipeline can work in strips."""
    spills: bool = False
    """The device has a host beside it that keeps things for it."""
    offload: bool = False
    """The transformer is in host memory whatever the plan."""

    @property
    def first(self) -> Plan:
        """What is tried first."""
        return Plan(offload=self.offload)

    def __iter__(self) -> Iterator[Plan]:
        plan = self.first
        while plan:
            yield plan
            plan = self.after(plan)

    def after(self, plan: Plan) -> Plan | None:
        """The next smaller plan; None: there is none."""
        if self.has_strips and not plan.strip_rows:
            return replace(plan, strip_rows=self._strip_rows(plan))
        if self.spills and not plan.offload:
            return replace(plan, offload=True)  # once a window; the caches travel with every batch of frames
        if self.spills and self.has_strips and not plan.host_caches:
            return replace(plan, host_caches=True)
        frames = plan.window or self.frames
        if frames > self.step + 1:
            return replace(plan, window=self.step * max((frames - 1) // self.step // 2, 1) + 1)
        tile = self._smaller(plan.tile or self.tile)
        if tile is None:
            return None
        smaller = replace(plan, window=None, tile=tile)
        return replace(smaller, strip_rows=self._strip_rows(smaller)) if plan.strip_rows else smaller

    def _strip_rows(self, plan: Plan) -> int:
        return -(-(plan.tile or self.tile)[0] // STRIPS)

    def _smaller(self, tile: tuple[int, int]) -> tuple[int, int] | None:
        """Half of the longer side or as little of it as may be, or of the other where it is that little already."""
        for axis in sorted((0, 1), key=lambda axis: -tile[axis]):
            half = max(-(-tile[axis] // (2 * self.multiple)) * self.multiple, self.least_tile[axis])
            if half < tile[axis]:
                return (half, tile[1]) if axis == 0 else (tile[0], half)
        return None


def ladder_for(layout: Layout, tile_overlap: tuple[int, int], multiple: int, step: int, **kind: int | bool) -> Ladder:
    """The plans for a clip.

    Args:
        layout: its geometry.
        tile_overlap: pixels that neighbouring tiles share at least, down and across.
        multiple, step: of the pipeline's `vsr.windows.Grid`.
        kind: ``frames`` of a window, and further fields of `Ladder`.
    """
    least = tuple((shared_units(overlap, multiple) + 2) * multiple for overlap in tile_overlap)
    return Ladder(tile=layout.tile, least_tile=least, multiple=multiple, step=step, **kind)
