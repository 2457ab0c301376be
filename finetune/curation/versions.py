"""What besides the configuration decides about the result: code, libraries and weights."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version

import av

from finetune.curation.config import CurationConfig
from finetune.curation.stage import RAFT_NAME
from vsr.errors import ModelError

CODE_VERSION = "2"
"""To be raised whenever a stage gives another result for the same file."""
LIBRARIES = ("av", "numpy", "opencv-python-headless", "scenedetect", "torch")


def resolved(config: CurationConfig) -> CurationConfig:
    """The configuration with flow: auto replaced by what there are weights for on this machine."""
    if config.motion.flow != "auto":
        return config
    found = config.motion.use and not _raft_complaint()
    return replace(config, motion=replace(config.motion, flow="raft" if found else "dis"))


def check_weights(config: CurationConfig, stages: Sequence[str]) -> None:
    """Raise ModelError, before any video is opened, when a stage needs weights that are not there."""
    if "quality" in stages and config.quality.metrics:
        from vsr.metrics.catalog import check_metrics

        try:
            check_metrics(config.quality.metrics, with_gt=False)
        except ModelError as error:
            how = (
                "or leave them out: quality.metrics=[fastervqa] with the quality.at_least of it, or quality.metrics=[]"
            )
            raise ModelError(f"{error}\n  {how}") from error
    if "motion" in stages and config.motion.use and config.motion.flow == "raft" and (wrong := _raft_complaint()):
        raise ModelError(f"motion.flow=raft: {wrong}; put the file there, or use motion.flow=dis, which needs none")


def versions_of(config: CurationConfig, stages: Sequence[str]) -> dict[str, str]:
    """The columns of the manifest that are the same in all its rows."""
    hashed = json.dumps([asdict(config), list(stages)], sort_keys=True)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {
        "config_hash": hashlib.sha256(hashed.encode()).hexdigest()[:16],
        "code_version": f"{CODE_VERSION} ({libraries})",
        "decoder": f"FFmpeg {av.ffmpeg_version_info} in PyAV",
        "weights": json.dumps({n: h for stage in stages for n, h in weights_of(config, stage).items()}, sort_keys=True),
    }


def weights_of(config: CurationConfig, stage: str) -> dict[str, str]:
    """Weight file -> SHA-256, of all that a stage uses."""
    if stage == "quality" and config.quality.metrics:
        from vsr.metrics import catalog
        from vsr.metrics.settings import ScoreSettings

        return catalog.weights_of(config.quality.metrics, ScoreSettings())
    if stage == "motion" and config.motion.use and config.motion.flow == "raft":
        from vsr.metrics.weights import RAFT, hash_of

        return {RAFT[RAFT_NAME].path.name: hash_of(RAFT[RAFT_NAME].path)}
    return {}


def _raft_complaint() -> str | None:
    from vsr.metrics.weights import RAFT, complaint

    return complaint(RAFT[RAFT_NAME])
