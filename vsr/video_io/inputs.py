"""Which videos, image folders and images a path names."""

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from vsr.errors import InputError

_FILES = (".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".ogv", ".y4m", ".gif")
_STREAMS = (".mpg", ".mpeg", ".ts", ".mts", ".m2ts")
VIDEO_EXTENSIONS = frozenset((*_FILES, *_STREAMS))
IMAGE_EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"))

LONGEST_NAME = 255
"""Bytes; file systems have no longer names, and the system answers such a question with an error."""

REPORT, COMPARISONS = "report.json", "compare"
"""What a folder of results holds beside them: the report, and a folder of pictures to judge them by."""

ImageFolder = Literal["auto", "clip", "images"]


def find_inputs(source: str | Path, image_folder: ImageFolder = "auto") -> list[Path]:
    """List the inputs that ``source`` names, sorted.

    Args:
        source: a file, a folder or a glob pattern. A folder gives its videos, its images and its sub-folders that hold
            images; each such sub-folder is one clip. Hidden files and other extensions are ignored.
        image_folder: what a folder that holds only images is: ``clip``, separate ``images``, or ``auto``, a clip if
            the names are consecutively numbered.
    """
    path = Path(source)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise InputError(f"input not found: {path.name[:40]}...: no file has a name of {len(path.name)} letters")
    if path.is_dir():
        found = _inputs_in(path, image_folder)
    elif os.path.lexists(path):
        return [path]
    elif glob.has_magic(str(source)):
        found = _inputs_matching(str(source))
    else:
        raise InputError(f"input not found: {source}; expected a file, a folder or a glob pattern")
    if not found:
        known = " ".join(sorted(VIDEO_EXTENSIONS | IMAGE_EXTENSIONS))
        hint = _hint(path) if path.is_dir() else ""
        raise InputError(f"no video or image found in {source}; expected files that end in one of: {known}{hint}")
    return found


def _hint(folder: Path) -> str:
    """Where the files may be, when they are one folder further down."""
    deeper = [entry for entry in _visible(folder) if _is(entry.is_dir) and _inputs_in(entry, "auto")]
    return f". There are some in {', '.join(str(entry) for entry in deeper)}: give one of these" if deeper else ""


def images_in(folder: Path) -> list[Path]:
    """The images of ``folder``, frame_2 before frame_10."""
    return sorted((entry for entry in _visible(folder) if _is_media(entry, IMAGE_EXTENSIONS)), key=_natural_key)


def _inputs_in(folder: Path, image_folder: ImageFolder) -> list[Path]:
    videos = [entry for entry in _visible(folder) if _is_media(entry, VIDEO_EXTENSIONS)]
    images = images_in(folder)
    clips = [entry for entry in _visible(folder) if _is_clip(entry, folder) and not _is_of_results(entry)]
    only_images = bool(images) and not videos and not clips
    if only_images and (image_folder == "clip" or (image_folder == "auto" and _consecutive(images))):
        return [folder]
    return sorted(videos + images + clips, key=_natural_key)


def _inputs_matching(pattern: str) -> list[Path]:
    """Matches of a glob; ``**`` may meet a file again through a link that loops, so each file counts once."""
    found: dict[Path, Path] = {}
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 (Path.glob refuses absolute patterns)
        path = Path(name)
        is_clip = _is_clip(path, path.parent) and not _is_of_results(path)
        if is_clip or _is_media(path, VIDEO_EXTENSIONS | IMAGE_EXTENSIONS):
            found.setdefault(Path(os.path.realpath(path)), path)
    return sorted(found.values(), key=_natural_key)


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error


def _is_media(path: Path, extensions: Iterable[str]) -> bool:
    """Links count that lead nowhere or where one may not go: they fail later, by name, not in silence."""
    if path.suffix.lower() not in extensions:
        return False
    return _is(path.is_file) or (_is(path.is_symlink, unknown=True) and not _is(path.exists))


def _is(question: Callable[[], bool], *, unknown: bool = False) -> bool:
    """The answer; ``unknown`` where one may not look."""
    try:
        return question()
    except OSError:
        return unknown


def _is_clip(path: Path, parent: Path) -> bool:
    """A sub-folder with images and no videos; a link back to the folder itself or above it is none."""
    if not _is(path.is_dir) or parent.resolve().is_relative_to(path.resolve()):
        return False
    try:
        entries = _visible(path)
    except InputError:
        return True  # it fails later, by name, and costs only itself
    holds_videos = any(_is_media(entry, VIDEO_EXTENSIONS) for entry in entries)
    return not holds_videos and any(_is_media(entry, IMAGE_EXTENSIONS) for entry in entries)


def _is_of_results(folder: Path) -> bool:
    """Restored images of an earlier run, or the pictures that ``--compare`` writes beside them."""
    return _is((folder / REPORT).is_file) or (folder.name == COMPARISONS and (folder.parent / REPORT).is_file())


def _consecutive(images: list[Path]) -> bool:
    """Names that differ only in a number which goes up by one."""
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", image.name) for image in images]
    if len(images) < 2 or not all(matches):
        return False
    parts = [match.groups() for match in matches if match]
    numbers = [int(number) for _, number, _ in parts]
    same_name = len({(prefix, suffix) for prefix, _, suffix in parts}) == 1
    return same_name and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    pieces = re.findall(r"\d+|\D+", path.name)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces], str(path)
