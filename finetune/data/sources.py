"""Which files a training run reads: all of a folder, those of a list, or the clips of a manifest."""

import os
from dataclasses import dataclass
from pathlib import Path

from finetune.data.keys import Kind
from vsr.errors import InputError
from vsr.video_io import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS

EXTENSIONS = {"video": VIDEO_EXTENSIONS, "image": IMAGE_EXTENSIONS}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A video or image, or a part of a video."""

    path: Path
    span: tuple[int, int] | None = None
    """First frame and the frame after the last; None: all."""
    box: tuple[int, int, int, int] | None = None
    """Column and row of the top left corner, width and height in pixels; None: the whole frame."""


def load_sources(path: Path, kind: Kind) -> list[Source]:
    """What ``path`` names: files, see `find_sources`, or the clips of a manifest, a .parquet of curate."""
    if kind == "video" and path.suffix.lower() == ".parquet":
        from finetune.data.manifest import read_manifest  # it needs pyarrow, which a list does not

        return read_manifest(path)
    return [Source(path=file) for file in find_sources(path, kind)]


def find_sources(path: Path, kind: Kind) -> list[Path]:
    """The videos or images that ``path`` names: a folder, searched recursively, or a .txt list.

    Order matters, since samples are drawn from it: a folder is sorted by relative path, a list is kept as it is.
    """
    found = files_in(path, kind) if path.is_dir() else _files_of_list(path, kind)
    if not found:
        raise InputError(f"{path}: names no {kind}; expected files that end in {' '.join(sorted(EXTENSIONS[kind]))}")
    return found


def files_in(folder: Path, kind: Kind) -> list[Path]:
    """All videos or images under a folder, sorted by relative path; hidden files and folders are ignored."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in EXTENSIONS[kind]]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _files_of_list(path: Path, kind: Kind) -> list[Path]:
    """One path per line, relative to the folder of the list."""
    if path.suffix.lower() != ".txt":
        listed = "a .txt list of finetune.scripts.prepare_dataset or a manifest.parquet of finetune.scripts.curate"
        raise InputError(f"{path}: expected a folder, {listed}")
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    found = [path.parent / line for line in lines if line.strip()]
    for file in found:
        if file.suffix.lower() not in EXTENSIONS[kind]:
            raise InputError(f"{path}: {file.name} is no {kind}; videos and images have a list each")
    return found
