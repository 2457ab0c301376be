"""What a user may choose about a restoration, checked when it is made, and the geometry that follows from it."""

import math
from dataclasses import dataclass

from vsr import windows
from vsr.color_fix import COLOR_FIXES
from vsr.errors import UsageError
from vsr.frames import UPSCALE_MODES, output_size


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """All settings of `vsr.restore_frames`. Those that are None come from the pipeline's own configuration."""

    scale: float | None = None
    """Super-resolution factor, any number above 0. At most one of scale, size and short_side is given."""
    size: tuple[int, int] | None = None
    """Width and height of the output in pixels."""
    short_side: int | None = None
    """Shorter side of the output in pixels; the aspect ratio is kept."""
    upscale_mode: str | None = None
    """Interpolation of the input to the output size, see `vsr.frames.UPSCALE_MODES`."""
    window: int = 33
    """Frames per window, 8k+1; 0: a whole scene at once, memory then grows with its length."""
    overlap: int | None = None
    """Frames that neighbouring windows share; rounded up to 8k+1. None: 9, or less where the window is small."""
    tile: tuple[int, int] = (0, 0)
    """Largest height and width of a tile in output pixels; 0: no bound but the pipeline's own."""
    tile_overlap: tuple[int, int] | None = None
    """Pixels that neighbouring tiles share at least, down and across; None: the pipeline's own."""
    scene_cut: str = "auto"
    """"auto": windows do not cross scene cuts; "off": the clip is one scene."""
    color_fix: str = "none"
    """"wavelet": low frequencies from the input."""
    timestep: int | None = None
    """Timestep at which the input counts as the noisy latent."""
    noise_step: int | None = None
    """Timestep of noise that is added to the latent first; 0: none."""
    seed: int = 42
    """Of whatever is random: posterior samples and added noise. Nothing is by default."""

    def __post_init__(self) -> None:
        given = [name for name in ("scale", "size", "short_side") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"the output size must be given once, got {' and '.join(given)}")
        for name in given:
            value = getattr(self, name)
            if not all(0 < number < math.inf for number in (value if isinstance(value, tuple) else (value,))):
                raise UsageError(f"{name} must be above 0, got {value}")
        for name in ("timestep", "noise_step"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        self._check_choice("upscale_mode", (None, *UPSCALE_MODES))
        self._check_choice("scene_cut", ("auto", "off"))
        self._check_choice("color_fix", COLOR_FIXES)
        if min(*self.tile, *(self.tile_overlap or ())) < 0:
            raise UsageError(f"tiles and overlaps must be at least 0, got {self.tile} and {self.tile_overlap}")
        if self.seed < 0:
            raise UsageError(f"the seed must be at least 0, got {self.seed}")

    def _check_choice(self, name: str, choices: tuple) -> None:
        if getattr(self, name) not in choices:
            known = ", ".join(str(choice) for choice in choices if choice)
            raise UsageError(f"{name} must be one of {known}, got {getattr(self, name)!r}")

    def checked_overlap(self, grid: windows.Grid) -> int:
        """The overlap in frames that windows really have; raises UsageError for an illegal window or overlap."""
        largest = max(self.window - grid.step, 0)
        wanted = min(grid.step + 1, largest) if self.overlap is None else self.overlap
        return windows.check_window(self.window, wanted, grid.step)

    def tile_overlap_on(self, grid: windows.Grid) -> tuple[int, int]:
        """Pixels that neighbouring tiles share at least, down and across."""
        return self.tile_overlap or (grid.tile_overlap,) * 2


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The geometry of one clip."""

    size: tuple[int, int]
    """Height and width of the output."""
    padded: tuple[int, int]
    """The same, padded to what the pipeline takes."""
    tile: tuple[int, int]
    """Height and width of every tile."""
    rows: list[int]
    """First pixel row of each row of tiles."""
    cols: list[int]
    """First pixel column of each column of tiles."""
    window: int
    """Frames per window; 0: the whole scene."""
    overlap: int
    """Frames that neighbouring windows share."""

    def describe_tile(self) -> str:
        """Width and height of a tile."""
        return f"{self.tile[1]}x{self.tile[0]}"

    def describe(self) -> str:
        """One line for people."""
        count = len(self.rows) * len(self.cols)
        tiles = f"{count} tiles of {self.describe_tile()}" if count > 1 else "no tiles"
        window = f"windows of {self.window} frames, overlap {self.overlap}" if self.window else "one window a scene"
        return f"{self.size[1]}x{self.size[0]}, {window}, {tiles}"


def make_layout(settings: RestoreSettings, grid: windows.Grid, height: int, width: int, default_scale: float) -> Layout:
    """The geometry for frames of ``height`` x ``width`` pixels on a pipeline that takes ``grid``."""
    scale = default_scale if settings.size is None and settings.short_side is None else None
    size = output_size(height, width, scale=settings.scale or scale, size=settings.size, short_side=settings.short_side)
    padded = tuple(-(-side // grid.multiple) * grid.multiple for side in size)
    overlap = settings.tile_overlap_on(grid)
    largest = windows.fit_tile(padded, settings.tile, grid.max_pixels, overlap, grid.multiple)
    axes = zip(padded, largest, overlap, strict=True)
    (tile_h, rows), (tile_w, cols) = (windows.cut_axis(*axis, grid.multiple) for axis in axes)
    return Layout(
        size=size,
        padded=padded,
        tile=(tile_h, tile_w),
        rows=rows,
        cols=cols,
        window=settings.window,
        overlap=settings.checked_overlap(grid),
    )
