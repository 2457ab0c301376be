"""What a training method is: named networks, and phases that say which of them learns from what.

A method file imports no other method. The trainer knows this file and no concrete method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vsr.restore import Pipeline

Batch = dict[str, Any]
"""``x_lq`` and ``x_gt``: (B, 3, F, H, W) float32 in [-1, 1] on the device; ``kind``: "video" or "image".

From a latent cache ``z_lq`` and ``z_gt`` instead: (B, C, f, h, w), scaled."""

LossFn = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]
"""Batch -> the scalar to minimise, and its terms, detached, to log."""


@dataclass(frozen=True)
class Phase:
    """One part of a training step."""

    name: str
    """Prefix of its log entries."""
    updates: tuple[str, ...]
    """Roles in `Method.networks` that get gradients; all others are frozen."""
    loss: LossFn
    repeat: int = 1
    """How often in a row."""
    fresh_batch: bool = True
    """False: the batch of the phase before."""


class Method:
    """One training step runs ``phases`` in order, once; a step is one update of the student.

    The trainer replaces the values of ``networks`` by their prepared selves, wrapped in the phases that update them and
    bare in the others; losses look them up there, each time.
    """

    networks: dict[str, nn.Module]
    """Trainable networks by role; "student" is what inference uses."""
    phases: tuple[Phase, ...]
    pipe: Pipeline
    """What inference uses, around the student itself."""
    component: str = "transformer"
    """The part of ``pipe`` that the student is: what an export replaces."""

    def end_step(self, step: int) -> None:
        """Called after step number ``step``, counted from 1."""

    def state_dict(self) -> dict[str, Any]:
        """Counters and frozen copies that a resume needs, besides the networks."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
