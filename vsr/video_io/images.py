"""Single images: bytes to RGB arrays and back."""

import io
from pathlib import Path
from warnings import catch_warnings

import cv2
import numpy as np
from PIL import Image, ImageCms

from vsr.errors import InputError

READ_AS_ONE = ("PNG", "TIFF", "WEBP")
"""Formats (of Pillow) that may hold several pictures, of which only the first is read."""


def read_image(path: Path) -> np.ndarray:
    """Read a PNG, JPEG, TIFF, WebP or BMP; a cut-off file is an error, never a half-grey picture.

    Returns:
        (H, W, 3) RGB, uint8 or uint16; turned as its EXIF orientation asks, without alpha channel.
    """
    bgr = _decode(_bytes_of(path))
    if bgr is None:
        raise InputError(f"{path}: not an image, or damaged or cut off; expected PNG, JPEG, TIFF, WebP or BMP")
    if bgr.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has pixels of type {bgr.dtype}; expected 8 or 16 bits per channel")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def what_is_lost(path: Path) -> tuple[str, ...]:
    """What a file holds that `read_image` leaves out, in words; looks at the header alone and never fails."""
    try:
        with catch_warnings(action="ignore"), Image.open(path, formats=("BMP", "JPEG", *READ_AS_ONE)) as picture:
            pictures = picture.n_frames if picture.format in READ_AS_ONE else 1
            profile = _profile_name(picture.info.get("icc_profile"))
            has_alpha = picture.has_transparency_data
    except Exception:
        return ()
    losses = {
        "the alpha channel is dropped": has_alpha,
        f"only the first of its {pictures} pictures is read": pictures > 1,
        f"its colour profile is dropped ({profile}); convert it to sRGB before": not _is_srgb(profile),
    }
    return tuple(loss for loss, is_lost in losses.items() if is_lost)


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


def _decode(data: np.ndarray) -> np.ndarray | None:
    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # for example an image beyond OpenCV's own size limit
        return None


def _is_srgb(profile: str) -> bool:
    return "sRGB" in profile or profile == "c2"  # so called in a much used short version of it


def _profile_name(profile: bytes | None) -> str:
    """Of an ICC profile; without one it is sRGB."""
    if not profile:
        return "sRGB"
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
    except (OSError, ImageCms.PyCMSError):
        return "unreadable"
