"""Which samples each process sees in which step, and the loader that brings them."""

import signal
from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from finetune.data.config import DataConfig
from finetune.data.dataset import PairDataset
from finetune.data.keys import Kind, Purpose, keyed_generator

PATIENCE = 600
"""Seconds until a batch that does not come is an error: a decoder can hang on a damaged file."""


class StepSampler(Sampler):
    """Yields the keys of this process's micro-batches, ``accumulation`` of them per step.

    The first step uses the samples f to f + G - 1, G = batch_size * world_size * accumulation, whatever the three
    factors, and each further step the G that follow; f is ``first_sample``, or start_step * G where it is None.
    """

    def __init__(
        self,
        *,
        seed: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        accumulation: int = 1,
        image_ratio: float = 0.0,
        start_step: int = 0,
        first_sample: int | None = None,
        steps: int,
    ) -> None:
        self._seed, self._image_ratio = seed, image_ratio
        self._batch_size, self._world_size, self._rank = batch_size, world_size, rank
        self._accumulation, self._start_step, self._steps = accumulation, start_step, steps
        group = batch_size * world_size * accumulation
        self._first = start_step * group if first_sample is None else first_sample

    def __len__(self) -> int:
        return max(0, self._steps - self._start_step) * self._accumulation

    def __iter__(self) -> Iterator[list[tuple[Kind, int]]]:
        for step in range(self._start_step, self._steps):
            kind = self.kind_of(step)
            for part in range(self._accumulation):
                batch = (step - self._start_step) * self._accumulation + part
                first = self._first + (batch * self._world_size + self._rank) * self._batch_size
                yield [(kind, n) for n in range(first, first + self._batch_size)]

    def kind_of(self, step: int) -> Kind:
        """Videos or images: one draw per step for all processes and micro-batches."""
        draw = keyed_generator(Purpose.KIND, self._seed, None, step).random()
        return "image" if draw < self._image_ratio else "video"


def training_loader(
    config: DataConfig,
    seed: int,
    batch_size: int,
    *,
    world_size: int = 1,
    rank: int = 0,
    accumulation: int = 1,
    start_step: int = 0,
    first_sample: int | None = None,
    steps: int,
    dataset: Dataset | None = None,
) -> DataLoader:
    """Micro-batches of this process: x_lq and x_gt, (B, 3, F, H, W) float32 in [-1, 1], their ``kind`` and ``number``.

    The sampler already divides the samples among processes; nobody else may.

    Args:
        start_step, first_sample: where a run goes on.
        dataset: read instead of a `PairDataset`, by the same keys.
    """
    sampler = StepSampler(
        seed=seed,
        batch_size=batch_size,
        world_size=world_size,
        rank=rank,
        accumulation=accumulation,
        image_ratio=config.image_ratio,
        start_step=start_step,
        first_sample=first_sample,
        steps=steps,
    )
    return DataLoader(
        dataset or PairDataset(config, seed),
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=_collate,
        worker_init_fn=start_worker,
        persistent_workers=config.workers > 0,
        timeout=PATIENCE if config.workers else 0,
        generator=torch.Generator(),  # otherwise the loader draws from torch's global state
    )


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {**default_collate(samples), "kind": samples[0]["kind"]}


def start_worker(worker: int) -> None:
    """One thread each. Signals, which may go to the whole group, are for the training process: it ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
