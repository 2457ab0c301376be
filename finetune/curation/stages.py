"""What can be done to the clips of one source, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from finetune.curation.rows import Row
from finetune.curation.stage import Bench

ORDER = ("validate", "scenes", "quality", "motion")
"""The stages that decide, in the paper's order."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Work on the rows of one source that are still kept; it gives one or more rows for each."""

    function: str
    """Where the work is: a function of finetune.curation. Only the process that runs a stage needs what it imports."""
    sections: tuple[str, ...] = ("limits",)
    """Parts of the configuration that decide about its result."""
    unused: tuple[str, ...] = ()
    """Fields of these parts that do not."""
    networks: tuple[str, ...] = ()
    """Attributes of the bench that are loaded before the first file; these stages run on a GPU where there is one."""

    def load(self, bench: Bench) -> Callable[[list[Row], Bench], list[Row]]:
        """Import the work and load its networks; errors of this concern all clips."""
        for network in self.networks:
            getattr(bench, network)
        module, _, name = self.function.partition(".")
        return getattr(import_module(f"finetune.curation.{module}"), name)


STAGES = {
    "validate": Stage(function="validate.validate", sections=("metadata", "limits")),
    "scenes": Stage(function="scenes.split", sections=("scenes", "limits")),
    "quality": Stage(
        function="quality.score",
        sections=("quality", "limits"),
        unused=("mode", "target_count", "at_least"),  # thresholds are applied later, to the scores of all clips
        networks=("scorers",),
    ),
    "motion": Stage(function="motion.crop_to_motion", sections=("motion", "limits"), networks=("flow",)),
    "sheet": Stage(function="sheets.draw"),
    "materialize": Stage(function="materialize.write_crops"),
}
