"""Seconds of each stage of a restoration."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from vsr import frames
from vsr.pipelines.dove import DOVEPipeline

STAGES = ("read", "upsample", "encode", "transformer", "decode", "blend", "write")


class Stopwatch:
    """Adds up seconds by name; waits for the device before it looks at the clock."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds = device, defaultdict(float)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] += self._now() - start
            if name == "restore":  # what is left of it is windows, tiles, blending and rounding
                inner = ("upsample", "encode", "transformer", "decode")
                self.seconds["blend"] = self.seconds["restore"] - sum(self.seconds[stage] for stage in inner)

    @contextmanager
    def upsampling(self) -> Iterator[None]:
        """Inside, the interpolation to the output size counts as a stage."""
        to_lq = frames.to_lq

        def timed(*args: Any) -> Tensor:
            with self.of("upsample"):
                return to_lq(*args)

        with patch("vsr.frames.to_lq", timed):
            yield

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class TimedPipeline:
    """What `vsr.restore_frames` needs of a pipeline, with a stopwatch around each of its three steps."""

    def __init__(self, pipe: DOVEPipeline, watch: Stopwatch) -> None:
        self._pipe, self._watch = pipe, watch
        self.config, self.grid = pipe.config, pipe.grid

    @torch.no_grad()
    def restore(self, x_lq: Tensor, *unused: Any) -> Tensor:
        """One window of one tile, (1, 3, F, H, W) in [-1, 1] to the same shape in [0, 1]; deterministic."""
        pipe, watch = self._pipe, self._watch
        with watch.of("encode"):
            z = pipe.encode(x_lq.to(pipe.device))
        with watch.of("transformer"):
            z = pipe.denoise(z)
        with watch.of("decode"):
            return (pipe.decode(z).float() * 0.5 + 0.5).clamp(0, 1)
