"""What photographs have and dead leaves lack: clouds and skin, the grain of wood and cloth, fur and grass."""

import cv2
import numpy as np

STEEPEST = 2.2
"""Slope of a spectrum: clouds; photographs have about 1 (Field, 1987), white noise 0."""
LONGEST = 12.0
"""How far grain is drawn out along its direction."""
SHIFT = 4
"""Bits of the fraction of a pixel in the corners that OpenCV draws between."""


def noise(rng: np.random.Generator, size: int, slope: float, stretch: float = 1.0) -> np.ndarray:
    """An amplitude of 1 / f^slope, drawn out along a random direction: (size, size), of mean 0 and deviation 1."""
    turn = rng.uniform(0, np.pi)
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    frequency = np.hypot(along * stretch, across)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.maximum(frequency, 1 / size) ** -slope
    field = np.fft.irfft2(spectrum, s=(size, size))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise of two scales in the colors of a ramp: clouds, skin, wood, cloth. (size, size, 3) float32, 0 to 255."""
    coarse = noise(rng, size, rng.uniform(1.2, STEEPEST))
    fine = noise(rng, size, rng.uniform(0.5, 1.5), rng.choice([1.0, rng.uniform(1, LONGEST)]))
    return _painted(coarse + rng.uniform(0, 0.7) * fine, ramp(rng))


def fur(rng: np.random.Generator, size: int) -> np.ndarray:
    """Many thin strokes along a direction that changes slowly: (size, size, 3) float32, 0 to 255."""
    flow = rng.uniform(0, 2 * np.pi) + rng.uniform(0.2, 1.5) * noise(rng, size, STEEPEST)
    colors, length, width = ramp(rng), rng.uniform(6, 40), int(rng.integers(1, 4))
    shades = _painted(noise(rng, size, 2.0), colors)
    picture = shades.round().astype(np.uint8)
    count = int(3 * size * size / (length * width))
    for x, y in rng.uniform(0, size, (count, 2)):
        color = shades[int(y), int(x)] * rng.uniform(0.6, 1.4)
        cv2.polylines(picture, [_stroke(flow, x, y, length)], False, color.tolist(), width, cv2.LINE_AA, SHIFT)
    return picture.astype(np.float32)


def _stroke(flow: np.ndarray, x: float, y: float, length: float, corners: int = 5) -> np.ndarray:
    """Corners (N, 2) int32, in 1 / 2^SHIFT pixels, of a line that follows the directions of ``flow``."""
    points = [(x, y)]
    for _ in range(corners - 1):
        direction = flow[int(y) % len(flow), int(x) % len(flow)]
        x, y = x + length / corners * np.cos(direction), y + length / corners * np.sin(direction)
        points.append((x, y))
    return np.round(np.array(points) * 2**SHIFT).astype(np.int32)


def ramp(rng: np.random.Generator) -> np.ndarray:
    """Colors from dark to light that lie near each other in hue: (6, 3) float32, 0 to 255."""
    value = np.sort(rng.uniform(0, 1, 6)) * rng.uniform(0.4, 1.0)
    hue = rng.uniform(0, 360) + rng.normal(0, 20, 6)
    saturation = (rng.uniform(0, 0.7) + rng.normal(0, 0.1, 6)).clip(0, 1)
    hsv = np.stack([hue % 360, saturation, value], axis=1).astype(np.float32)
    return 255 * cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]


def _painted(field: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Each number of the field in the color that it has on the ramp, from -2 to 2."""
    places = np.linspace(-2, 2, len(colors))
    return np.stack([np.interp(field, places, channel) for channel in colors.T], axis=-1).astype(np.float32)
