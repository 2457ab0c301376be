"""Restoring windows with as much memory as there is: when it runs out, the same window again with a smaller plan."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsr.memory import is_out_of_memory, release
from vsr.offload import offload_transformer
from vsr.plans import Ladder, Plan, ladder_for
from vsr.restore_window import OnTile, Pipeline, restore_window
from vsr.settings import Layout, RestoreSettings, make_layout
from vsr.vae import Memory

log = logging.getLogger(__name__)


class Fitting:
    """A pipeline with the plans that were made for it and those it has come to, for each size of tile.

    What was too much once is not tried again, for all windows and files that follow.

    Args:
        pipe: one without ``vae_memory`` has only smaller windows and tiles to offer.
        may_offload: caches and the transformer may move to host memory; not in the midst of training.
        on_tile: called after each tile.
    """

    def __init__(self, pipe: Pipeline, *, may_offload: bool = True, on_tile: OnTile | None = None) -> None:
        self._pipe, self._may_offload, self._on_tile = pipe, may_offload, on_tile
        self._device = pipe.vae.device if hasattr(pipe, "vae") else torch.device("cpu")
        self._planned: dict[tuple[int, int], Plan] = {}
        self._found: dict[tuple[int, int], Plan] = {}
        self._notes: list[str] = []

    def start(self, layout: Layout, plan: Plan) -> None:
        """Begin a file with ``plan``, or with a smaller one that was found necessary already."""
        self._planned[layout.tile], self._notes = plan, []
        plan = self.plan_of(layout)
        if plan != Plan(offload=self._is_offloaded):
            self._note(f"planned: {plan.describe()}", logging.WARNING if plan.kind == "tiled" else logging.INFO)

    def plan_of(self, layout: Layout) -> Plan:
        """What windows of this geometry are restored with."""
        plans = (plans.get(layout.tile, Plan()) for plans in (self._planned, self._found))
        plan = max(plans, key=attrgetter("position"))
        return replace(plan, offload=plan.offload or self._is_offloaded)

    def take_notes(self) -> list[str]:
        """What there is to say about the file since it began, or since this was last asked."""
        notes, self._notes = self._notes, []
        return notes

    def restore_window(
        self, settings: RestoreSettings, prompt_embedding: Tensor | None, number: int, clip: list[np.ndarray]
    ) -> Tensor:
        """As `vsr.restore_window.restore_window`, in as many attempts as it takes.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: the allocation that failed with the smallest plan.
        """
        layout = make_layout(settings, self._pipe.grid, *clip[0].shape[:2], self._pipe.config.scale)
        while True:
            plan = self.plan_of(layout)
            try:
                with self._as_planned(plan):
                    return restore_window(self._pipe, settings, prompt_embedding, number, clip, plan, self._on_tile)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                smaller = self._ladder(layout, settings, len(clip)).after(plan) if is_out_of_memory(error) else None
                if smaller is None:
                    raise
            self._step_down(layout, number, plan, smaller)  # not above: there the error keeps what failed alive

    @property
    def _is_offloaded(self) -> bool:
        by_diffusers = getattr(self._pipe, "_all_hooks", None)  # of enable_model_cpu_offload
        return bool(by_diffusers) or getattr(self._pipe, "transformer_offloaded", False)

    @contextmanager
    def _as_planned(self, plan: Plan) -> Iterator[None]:
        """Inside, the pipeline works as planned. Afterwards only the transformer stays where it is."""
        if plan.offload and not self._is_offloaded:
            offload_transformer(self._pipe, self._device)
        if not plan.strip_rows:
            yield
            return
        before = self._pipe.vae_memory
        self._pipe.vae_memory = Memory(plan.strip_rows, "cpu" if plan.host_caches else None)
        try:
            yield
        finally:
            self._pipe.vae_memory = before

    def _step_down(self, layout: Layout, number: int, plan: Plan, smaller: Plan) -> None:
        release(self._device)
        self._found[layout.tile] = smaller
        self._note(f"out of memory in window {number} with {plan.describe()}; from there on: {smaller.describe()}")

    def _note(self, note: str, level: int = logging.WARNING) -> None:
        self._notes.append(note)
        log.log(level, note)

    def _ladder(self, layout: Layout, settings: RestoreSettings, frames: int) -> Ladder:
        grid, kind = self._pipe.grid, features_of(self._pipe, self._device)
        kind["spills"] &= self._may_offload
        return ladder_for(layout, settings.tile_overlap_on(grid), grid.multiple, grid.step, frames=frames, **kind)


def features_of(pipe: Any, device: torch.device) -> dict[str, bool]:
    """The fields of `vsr.plans.Ladder` that say what a pipeline can do on a device."""
    has_memory = hasattr(pipe, "vae_memory")
    return {"has_strips": has_memory and not pipe.vae.use_tiling, "spills": has_memory and device.type == "cuda"}
