"""Which windows in time and which tiles in space a clip is cut into. Integers only; no pixel is touched here.

The CogVideoX VAE returns as many frames as it was given only for 8k or 8k+1 of them, so windows are ``step * k + 1``
frames long and start at multiples of ``step``. Tiles have one size, a multiple of ``multiple`` pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from vsr.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The sizes that a pipeline takes."""

    multiple: int
    """Height and width are multiples of it: VAE factor times patch size, in pixels."""
    step: int
    """A window has ``step * k + 1`` frames."""
    max_pixels: int | None = None
    """Largest height times width of a tile; None: no bound."""
    tile_overlap: int = 32
    """Pixels that neighbouring tiles share at least, where a user does not say."""


@dataclass(frozen=True)
class Window(Generic[T]):
    """One window of a scene: what the network sees, and how far its result is final."""

    frames: list[T]
    """``step * k + 1`` frames; the last frame of the scene is repeated where the scene is too short."""
    advance: int
    """Frames up to the start of the next window, or to the end of the scene: no later window touches them."""


def legal_length(length: int, step: int) -> int:
    """The least ``step * k + 1`` that is not below ``length``."""
    return -(-(length - 1) // step) * step + 1


def check_window(window: int, overlap: int, step: int) -> int:
    """Refuse an illegal window; return the overlap, rounded up so that windows start at multiples of ``step``.

    ``window`` 0 means the whole scene and ignores the overlap.
    """
    if window == 0:
        return 0
    if window < 0 or window != legal_length(window, step):
        below, above = max(legal_length(window, step) - step, 1), legal_length(max(window, 1), step)
        raise UsageError(
            f"a window must have {step}k+1 frames, because the video VAE shifts frames in time for other lengths; "
            f"got {window}, use {above if above == below else f'{below} or {above}'} (or 0 for the whole clip)"
        )
    rounded = legal_length(max(overlap, 1), step)
    if overlap < 0 or (rounded >= window and window > 1):
        counted = f"{overlap}, which counts as {rounded}" if rounded != overlap else str(overlap)
        raise UsageError(f"the overlap must be at least 0 and below the window of {window} frames, got {counted}")
    return min(rounded, window - 1) if window > 1 else 0


def cut_scene(frames: Iterable[T], window: int, overlap: int, step: int) -> Iterator[Window[T]]:
    """Cut the frames of one scene into overlapping windows, as a stream that holds at most two windows of frames.

    All windows of a scene have one length. The last one is moved back (and so overlaps more) rather than shortened; a
    scene shorter than ``window`` gets the least legal length that holds it.

    Args:
        frames: the frames of the scene, in order; anything.
        window, overlap: as checked by `check_window`; window 0: the whole scene at once.
    """
    source = iter(frames)
    held = list(islice(source, window or None))
    if not held:
        return
    if not window or len(held) < window:
        yield Window(_extended(held, legal_length(len(held), step)), len(held))
        return
    stride, padding = window - overlap, 0
    while ahead := list(islice(source, stride)):
        advance = -(-len(ahead) // step) * step if len(ahead) < stride else stride
        yield Window(held, advance)
        padding = advance - len(ahead)
        held = _extended(held[advance:] + ahead, window)
    yield Window(held, window - padding)


def _extended(frames: list[T], length: int) -> list[T]:
    return frames + frames[-1:] * (length - len(frames))


def count_windows(length: int, window: int, overlap: int, step: int) -> int:
    """How many windows `cut_scene` makes of a scene of ``length`` frames."""
    return sum(1 for _ in cut_scene(range(length), window, overlap, step))


def cut_axis(length: int, tile: int, overlap: int, multiple: int) -> tuple[int, list[int]]:
    """Cut an axis into equal tiles.

    Every second tile begins half a ``multiple`` early: what a network does to the borders of its tokens then falls on
    another place in the tile beside it, and fades where they overlap.

    Args:
        length: pixels, a multiple of ``multiple``.
        tile: largest size allowed, 0 for no bound. The tiles are no larger, since the size bounds the memory.
        overlap: pixels that neighbours share at least.

    Returns:
        The size of the tiles, a multiple of ``multiple``, and their starts, multiples of half of it.
    """
    if not tile or length <= tile:
        return length, [0]
    units, most, shared = length // multiple, tile // multiple, shared_units(overlap, multiple)
    if most <= shared:
        least = (shared + 1) * multiple
        raise UsageError(
            f"a tile of {tile} pixels is too small for an overlap of {overlap}: give a --tile_size_hw of at least "
            f"{least}, or a smaller --overlap_hw"
        )
    count = -(-(units - shared) // (most - shared))
    size = -(-(units + (count - 1) * shared) // count)
    last, early = units - size, _early(overlap, multiple)
    inner = [i * last // (count - 1) * multiple - (i % 2) * early for i in range(1, count - 1)]
    return size * multiple, [0, *inner, last * multiple]


def shared_units(overlap: int, multiple: int) -> int:
    """How many times ``multiple`` tiles share, for ``overlap`` pixels also behind one that begins early."""
    return -(-(overlap + _early(overlap, multiple)) // multiple)


def _early(overlap: int, multiple: int) -> int:
    """How many pixels every second tile begins early: none where tiles are to share none."""
    return multiple // 2 if overlap else 0


def fit_tile(
    size: tuple[int, int], asked: tuple[int, int], max_pixels: int | None, overlap: tuple[int, int], multiple: int
) -> tuple[int, int]:
    """The largest tile, in as few cuts as possible, of at most ``max_pixels``; the frame itself where it fits.

    Args:
        size: height and width of the frame.
        asked: largest height and width of the tile; 0: no bound.
        overlap: pixels that neighbours share at least, down and across.
    """
    tile = [cut_axis(*axis, multiple)[0] for axis in zip(size, asked, overlap, strict=True)]
    least = [(shared_units(shared, multiple) + 1) * multiple for shared in overlap]
    while max_pixels and tile[0] * tile[1] > max_pixels:
        axis = max((0, 1), key=lambda axis: (tile[axis] > least[axis], tile[axis]))  # the longer that can be shorter
        if tile[axis] <= least[axis]:
            raise UsageError(
                f"frames of {size[1]}x{size[0]} must be cut into tiles of at most {max_pixels} pixels, and with an "
                f"overlap of {overlap[0]} and {overlap[1]} pixels the least are {least[1]}x{least[0]}; give a smaller "
                "--overlap_hw"
            )
        tile[axis], _ = cut_axis(size[axis], tile[axis] - multiple, overlap[axis], multiple)
    return tile[0], tile[1]
