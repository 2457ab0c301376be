"""Single images: bytes to RGB arrays and back."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vsr.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded image file."""

    pixels: np.ndarray
    """(H, W, 3) RGB, uint8 or uint16; turned as its EXIF orientation asks."""
    has_alpha: bool
    """The file has an alpha channel, which is not in ``pixels``."""


def read_image(path: Path) -> Picture:
    """Read a PNG, JPEG, TIFF, WebP or BMP; a cut-off file is an error, never a half-grey picture."""
    data = _bytes_of(path)
    bgr = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if bgr is None:
        raise InputError(f"{path}: not an image, or damaged or cut off; expected PNG, JPEG, TIFF, WebP or BMP")
    if bgr.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has pixels of type {bgr.dtype}; expected 8 or 16 bits per channel")
    return Picture(pixels=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), has_alpha=_has_alpha(path, data))


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG of an RGB array, 8 or 16 bits per channel as the array has."""
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _bytes_of(path: Path) -> np.ndarray:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    if not data.size:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    return data


def _decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:  # for example an image beyond OpenCV's own size limit
        return None


def _has_alpha(path: Path, data: np.ndarray) -> bool:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return False
    stored = _decode(data, cv2.IMREAD_UNCHANGED)
    return stored is not None and stored.ndim == 3 and stored.shape[2] == 4
