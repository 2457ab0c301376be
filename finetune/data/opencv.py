"""The same pixels whatever CPU has made them; seen on x86 with AVX2, without and with AVX-512."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def without_ipp() -> Iterator[None]:
    """OpenCV's own kernels, without those of IPP, which round otherwise on other CPUs; in the thread that asks for it.

    A video codec that sees one pixel a level lighter makes other choices, and the clip is another one from there on.
    """
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(before)
