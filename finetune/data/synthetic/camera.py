"""A simulated camera over a flat picture: where it looks at each moment, and what it sees."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from finetune.data.opencv import without_ipp

SUPERSAMPLING = 2
"""Each output pixel is the mean of that many times as many samples along each axis, so that nothing aliases."""


@dataclass(frozen=True, kw_only=True)
class CameraMove:
    """A move in a time u that eases from -0.5 to 0.5 over the clip: slow, fast, slow."""

    center: tuple[float, float]
    """Where the camera looks half-way, as fractions of the picture's width and height."""
    step: float
    """Picture pixels per output pixel; 1 or more, so that the clip is as sharp as its size allows."""
    pan: tuple[float, float]
    """Way of the camera over the whole clip, right and down, in picture pixels."""
    zoom: float = 1.0
    """How many times larger the step is at the end than at the start; below 1 the camera moves in."""
    turn: float = 0.0
    """Rotation over the whole clip, in degrees."""

    def matrix(self, picture_size: tuple[int, int], size: tuple[int, int], frame: int, frames: int) -> np.ndarray:
        """The 2x3 matrix that takes output pixels (x, y, 1) to picture pixels.

        Args:
            picture_size: width and height of the picture.
            size: width and height of the output.
            frame: 0 to frames - 1.
            frames: of the whole clip, at least 2.
        """
        u = -0.5 * np.cos(np.pi * frame / (frames - 1))
        step = self.step * self.zoom**u
        angle = np.deg2rad(self.turn * u)
        linear = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        look_at = np.multiply(self.center, picture_size) + np.multiply(self.pan, u) - 0.5
        middle = (np.array(size) - 1) / 2
        return np.column_stack([linear, look_at - linear @ middle])


@without_ipp()
def warp(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What ``matrix`` shows of the picture, mirrored beyond its border, without aliasing.

    Args:
        picture: (H, W) or (H, W, C), uint8 or float32.
        matrix: 2x3, from output pixels to picture pixels.
        size: width and height of the output.
    """
    fine = 1 / SUPERSAMPLING
    to_output_pixel = np.array([[fine, 0, (fine - 1) / 2], [0, fine, (fine - 1) / 2], [0, 0, 1]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    fine_size = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    large = cv2.warpAffine(picture, matrix @ to_output_pixel, fine_size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.resize(large, size, interpolation=cv2.INTER_AREA)


def film(picture: np.ndarray, move: CameraMove, size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """The frames of one move over one picture, each (height, width, ...) of the dtype of the picture.

    Args:
        size: width and height of a frame.
    """
    for frame in range(frames):
        yield warp(picture, move.matrix(picture.shape[1::-1], size, frame, frames), size)
