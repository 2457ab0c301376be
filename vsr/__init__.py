"""One-step diffusion video super-resolution: the inference core.

import vsr
pipe = vsr.load_pipeline("pretrained_models/DOVE")
vsr.restore_video("old.mp4", "new.mp4", pipe)
"""

from vsr.pipelines import load_pipeline
from vsr.restore import restore_frames
from vsr.settings import RestoreSettings

__all__ = ["RestoreSettings", "load_pipeline", "restore_frames"]
