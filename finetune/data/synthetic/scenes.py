"""Random scenes: a camera that moves over a picture, and objects that move in front of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from finetune.data.synthetic.camera import CameraMove, warp
from finetune.data.synthetic.pictures import random_picture

PICTURE, OBJECT_PICTURE = 384, 160
"""Sides of the square pictures of backgrounds and of objects."""
FASTEST = 3.0
"""Largest mean speed of a camera, in output pixels per frame; midway it is faster, and objects are faster still."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A picture that moves, opaque where its mask is."""

    picture: np.ndarray
    mask: np.ndarray | None
    """(H, W) float32 in [0, 1]; None: opaque everywhere."""
    move: CameraMove


def random_scene(rng: np.random.Generator, size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """The frames of a clip that follows from the state of ``rng`` alone: (height, width, 3) uint8.

    Args:
        size: width and height of a frame.
        frames: at least 2.
    """
    background = _Layer(picture=random_picture(rng, PICTURE), mask=None, move=_random_move(rng, frames))
    objects = [_random_object(rng, size, frames) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
    for frame in range(frames):
        seen = _seen(background.picture, background.move, size, frame, frames).astype(np.float32)
        for item in objects:
            opacity = _seen(item.mask, item.move, size, frame, frames)[..., None].clip(0, 1)
            seen += opacity * (_seen(item.picture, item.move, size, frame, frames) - seen)
        yield seen.round().clip(0, 255).astype(np.uint8)


def _seen(picture: np.ndarray, move: CameraMove, size: tuple[int, int], frame: int, frames: int) -> np.ndarray:
    return warp(picture, move.matrix(picture.shape[1::-1], size, frame, frames), size)


def _random_move(rng: np.random.Generator, frames: int) -> CameraMove:
    """One clip in six has a camera that stands still."""
    stands = rng.random() < 1 / 6
    speed = 0.0 if stands else rng.uniform(0, FASTEST) * (frames - 1)
    direction = rng.uniform(0, 2 * np.pi)
    step = rng.uniform(1.0, 1.6)
    return CameraMove(
        center=tuple(rng.uniform(0.35, 0.65, 2)),
        step=step,
        pan=(speed * step * np.cos(direction), speed * step * np.sin(direction)),
        zoom=1.0 if stands else rng.uniform(0.85, 1.15),
        turn=0.0 if stands else rng.uniform(-6, 6),
    )


def _random_object(rng: np.random.Generator, size: tuple[int, int], frames: int) -> _Layer:
    """A blob cut out of a picture."""
    corners = int(rng.integers(3, 12))
    angles = 2 * np.pi * np.arange(corners) / corners
    radius = rng.uniform(0.08, 0.2) * min(size)
    spokes = radius * rng.uniform(0.5, 1.2, (corners, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.zeros((OBJECT_PICTURE, OBJECT_PICTURE), np.float32)
    cv2.fillPoly(mask, [np.round(spokes + OBJECT_PICTURE / 2).astype(np.int32)], 1.0, cv2.LINE_8)
    move = _random_move(rng, frames)
    off_center = rng.uniform(-0.4, 0.4, 2) * min(size) / OBJECT_PICTURE  # where the object is seen half-way
    placed = CameraMove(center=tuple(0.5 - off_center), step=1.0, pan=move.pan, zoom=move.zoom, turn=4 * move.turn)
    return _Layer(picture=random_picture(rng, OBJECT_PICTURE), mask=cv2.GaussianBlur(mask, (0, 0), 0.7), move=placed)
