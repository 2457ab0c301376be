"""One-step diffusion video super-resolution: the inference core.

import vsr
pipe = vsr.load_pipeline("pretrained_models/DOVE")
vsr.restore_video("old.mp4", "new.mp4", pipe)
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "RestoreSettings": "vsr.settings",
    "load_pipeline": "vsr.pipelines",
    "restore_frames": "vsr.restore",
    "restore_video": "vsr.restore_file",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: torch and diffusers take seconds, `vsr.video_io` needs neither."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vsr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
