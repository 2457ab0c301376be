"""Pictures to film: photographs that ship inside scikit-image, grain, fur, and dead leaves with texture."""

from functools import lru_cache

import cv2
import numpy as np
import skimage.data

from finetune.data.synthetic.textures import SHIFT, fur, grain, noise, ramp

PHOTOGRAPHS = (
    "retina",
    "hubble_deep_field",
    "immunohistochemistry",
    "brick",
    "grass",
    "gravel",
    "coins",
    "moon",
    "text",
    "page",
    "cell",
)
"""Functions of skimage.data for training; all of them ship inside the wheel."""
HELD_OUT = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "camera")
"""Photographs that nothing here trains on; the first four are the demo."""
TEXTURES = ("brick", "grass", "gravel")


@lru_cache(maxsize=32)
def photograph(name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB; gray ones have three equal channels."""
    picture = skimage.data.stereo_motorcycle()[0] if name == "motorcycle_left" else getattr(skimage.data, name)()
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def random_picture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A square of one of the `KINDS`: (size, size, 3) uint8. One in three is out of focus, all of it or in part."""
    picture = rng.choice(list(KINDS), p=list(KINDS.values()))(rng, size)
    if rng.random() > 1 / 3:
        return picture
    soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 3.0))
    if rng.random() < 0.5:
        return soft
    depth = (noise(rng, size, slope=2.2)[..., None] + rng.uniform(-1, 1)).clip(0, 1)
    return (picture + depth * (soft.astype(np.float32) - picture)).round().astype(np.uint8)


def shaded_grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """`grain` under a light that is not even: (size, size, 3) uint8."""
    return _shade(grain(rng, size), rng)


def shaded_fur(rng: np.random.Generator, size: int) -> np.ndarray:
    """`fur` under a light that is not even: (size, size, 3) uint8."""
    return _shade(fur(rng, size), rng)


def dead_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Opaque shapes over each other, with radii that make the spectrum fall like that of photographs.

    The model of Lee, Mumford and Huang (IJCV 2001), with shapes of several kinds, colors of photographs, texture on
    some of the leaves and smooth shading over all of them.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    picture, texture_of = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    colors = _palette(rng)
    for radius in _radii(rng, size * size, smallest=rng.uniform(2, 8), largest=size / rng.uniform(2.5, 8)):
        shape = _outline(rng, size, radius)
        cv2.fillPoly(picture, [shape], colors[rng.integers(len(colors))].tolist(), cv2.LINE_AA, SHIFT)
        cv2.fillPoly(texture_of, [shape], int(rng.integers(2 * len(TEXTURES))), cv2.LINE_8, SHIFT)
    return _shade(_cover(picture, texture_of, rng), rng)


COVERAGE = 6.0
"""Area of the circles around all leaves by area of the picture: hardly anything stays bare."""


def _radii(rng: np.random.Generator, area: int, smallest: float, largest: float) -> np.ndarray:
    """Radii with a density proportional to r^-3, under which the picture is the same at every scale."""
    mean_leaf = 2 * np.pi * smallest**2 * np.log(largest / smallest) / (1 - (smallest / largest) ** 2)
    count = int(COVERAGE * area / mean_leaf)
    return (smallest**-2 - rng.random(count) * (smallest**-2 - largest**-2)) ** -0.5


def _outline(rng: np.random.Generator, size: int, radius: float) -> np.ndarray:
    """Corners of an ellipse, a polygon or a long bar, turned at random: (N, 2) int32, in 1 / 2^SHIFT pixels."""
    corners = int(rng.choice([3, 4, 4, 5, 24, 24]))
    angles = 2 * np.pi * (np.arange(corners) + (0 if corners == 24 else rng.uniform(-0.3, 0.3, corners))) / corners
    shape = np.stack([np.cos(angles), np.sin(angles) * rng.choice([1, rng.uniform(0.1, 1)])], axis=1)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = radius * shape @ rotation + rng.uniform(0, size, 2)
    return np.round(points * 2**SHIFT).astype(np.int32)


def _palette(rng: np.random.Generator, count: int = 64) -> np.ndarray:
    """Any colors in ramps, grays with some tint, or colors of one photograph, shifted a little: (N, 3) uint8."""
    kind = rng.random()
    if kind < 0.35:
        return np.concatenate([ramp(rng) for _ in range(count // 6)]).astype(np.uint8)
    if kind < 0.6:
        gray, tint = rng.uniform(0, 255, (count, 1)), rng.normal(0, rng.uniform(5, 50), (count, 3))
        return (gray + tint).clip(0, 255).astype(np.uint8)
    pixels = photograph(PHOTOGRAPHS[rng.integers(3)]).reshape(-1, 3)  # those in color
    shifted = rng.choice(pixels, count) * rng.uniform(0.75, 1.25, 3) + rng.normal(0, 20, (count, 3))
    return shifted.clip(0, 255).astype(np.uint8)


def _cover(picture: np.ndarray, texture_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a texture on the leaves whose number in ``texture_of`` is that of a texture; the others stay plain."""
    covered, size = picture.astype(np.float32), len(picture)
    for number, name in enumerate(TEXTURES):
        if rng.random() < 0.5:
            texture = _random_part(photograph(name), rng, size)[..., :1].astype(np.float32)
            contrast = rng.uniform(0.2, 1.0) * (texture - texture.mean()) / 128
        else:
            contrast = rng.uniform(0.02, 0.3) * noise(rng, size, rng.uniform(0.3, 1.8), rng.uniform(1, 8))[..., None]
        covered = np.where((texture_of == number)[..., None], covered * (1 + contrast), covered)
    return covered


def _shade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    light = rng.uniform(0.7, 1.3, (3, 3)).astype(np.float32)
    light = cv2.resize(light, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return (picture * light[..., None]).round().clip(0, 255).astype(np.uint8)


def _random_photograph(rng: np.random.Generator, size: int) -> np.ndarray:
    """A part of a photograph, turned, mirrored and tinted at random."""
    part = _random_part(photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))]), rng, size)
    tinted = part * rng.uniform(0.7, 1.25, 3) + rng.normal(0, 10, 3)
    return tinted.round().clip(0, 255).astype(np.uint8)


def _random_part(photo: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """A square of random place, scale, quarter turn and mirroring."""
    side = int(min(photo.shape[0], photo.shape[1], size * rng.uniform(0.7, 1.6)))
    top, left = (int(rng.integers(whole - side + 1)) for whole in photo.shape[:2])
    part = np.rot90(photo[top : top + side, left : left + side], int(rng.integers(4)))
    part = part[:, ::-1] if rng.random() < 0.5 else part
    shrinks = side > size
    return cv2.resize(
        np.ascontiguousarray(part), (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


KINDS = {_random_photograph: 0.3, shaded_grain: 0.15, shaded_fur: 0.15, dead_leaves: 0.4}
"""Pictures to draw, with their probabilities."""
