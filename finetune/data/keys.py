"""Random generators by key, so that a draw depends on what it is for and never on who makes it or when."""

from enum import IntEnum
from typing import Literal

import numpy as np

Kind = Literal["video", "image"]
KINDS: tuple[Kind, ...] = ("video", "image")


class Purpose(IntEnum):
    """What a generator is for; the first word of its key."""

    ORDER = 1
    """The permutation of the files of one kind in one epoch."""
    SAMPLE = 2
    """Window, crops and degradation of one sample."""
    KIND = 3
    """Videos or images in one step."""
    LATENT = 4
    """The order of cached samples, from their second turn on."""
    LATENT_CROP = 5
    """The part of a cached sample that one step sees."""
    POSTERIOR = 6
    """Noise of the latents while a VAE is trained."""


def keyed_generator(purpose: Purpose, seed: int, kind: Kind | None, number: int) -> np.random.Generator:
    """The generator of one purpose, for an epoch, a sample or a step."""
    which = 0 if kind is None else 1 + KINDS.index(kind)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([purpose, seed, which, number])))
