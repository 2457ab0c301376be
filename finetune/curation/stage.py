"""What the stages are given to work with, in the process that reads the files."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.curation.config import CurationConfig
from finetune.curation.rows import Row
from vsr.video_io import probe, read_frames

if TYPE_CHECKING:  # torch takes seconds to import, and only two stages need it
    from vsr.metrics.flow import Flow
    from vsr.metrics.metric import Start


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is the same for all clips; travels to the workers."""

    root: Path
    """Folder that the paths of the rows are relative to."""
    output: Path
    """Folder of the results, for files that a stage writes."""
    config: CurationConfig
    """Resolved: motion.flow is no longer auto."""
    device: str
    """Of the networks: auto, cpu, cuda."""


class Bench:
    """A setup with its networks, which are loaded when first asked for and then kept."""

    def __init__(self, setup: Setup) -> None:
        self.root, self.output, self.config, self._device = setup.root, setup.output, setup.config, setup.device

    @cached_property
    def device(self) -> str:
        from vsr.devices import choose_device

        return str(choose_device(self._device))

    @cached_property
    def flow(self) -> "Flow":
        """Optical flow of two frames."""
        from vsr.metrics.flow import dis_flow, raft
        from vsr.metrics.weights import RAFT

        if self.config.motion.flow == "dis":
            return dis_flow
        return raft(RAFT[RAFT_NAME].path, self.device)

    @cached_property
    def scorers(self) -> "dict[str, Start]":
        """What starts the scoring of one scene, by metric."""
        if not self.config.quality.metrics:
            return {}
        from vsr.metrics.catalog import METRICS, check_metrics
        from vsr.metrics.settings import ScoreSettings

        quality = self.config.quality
        settings = ScoreSettings(device=self.device, seed=quality.seed)
        check_metrics(quality.metrics, settings, with_gt=False)
        return {name: METRICS[name].build(settings) for name in quality.metrics}


RAFT_NAME = "raft_large_C_T_SKHT_V2"
FLOW_NAMES = {"raft": RAFT_NAME, "dis": "OpenCV DIS, medium"}


def frames_of_scenes(path: Path, scenes: list[Row]) -> Iterator[tuple[Row, int, np.ndarray]]:
    """The frames of all scenes of one file, in one pass from its beginning: (scene, number in it, pixels).

    Counting from the beginning is what makes numbers of frames mean the same everywhere; seeking does not.

    Args:
        scenes: rows of one source, in order, that do not overlap.
    """
    assert all(a["end_frame"] <= b["start_frame"] for a, b in pairwise(scenes)), "scenes overlap"
    waiting = list(scenes)
    for number, frame in enumerate(read_frames(probe(path))):
        if number >= waiting[0]["end_frame"]:
            waiting.pop(0)
            if not waiting:
                return
        if number >= waiting[0]["start_frame"]:
            yield waiting[0], number - waiting[0]["start_frame"], frame.pixels
