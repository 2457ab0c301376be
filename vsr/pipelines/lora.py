"""LoRA weights, fused into the transformer of a pipeline."""

import importlib.util
import logging
from pathlib import Path

from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open

from vsr.errors import ModelError, UsageError

log = logging.getLogger(__name__)

FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"
"""Key under which diffusers keeps alpha and rank in the header of the file."""


def check_lora(path: Path) -> Path:
    """The LoRA file that ``path``, a file or a folder, names; raises before anything large is loaded."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise UsageError(f"{path}: expected a .safetensors file with LoRA weights, or a folder with {FILE}")
    if importlib.util.find_spec("peft") is None:
        raise UsageError("--lora_path needs the package peft: pip install peft")
    return file


def fuse_lora(pipe: DiffusionPipeline, path: Path, scale: float = 1.0) -> None:
    """Load LoRA weights and add them to the transformer, times ``scale``.

    The factor alpha / rank comes from the metadata of the file. A file without it (all that the published DOVE's
    trainer writes) counts as alpha = rank, so that ``scale`` alone decides.
    """
    file = check_lora(path)
    try:
        with safe_open(file, "pt") as weights:
            knows_alpha = METADATA in (weights.metadata() or {})
        pipe.load_lora_weights(file.parent, weight_name=file.name)
        if not pipe.get_list_adapters():
            raise ValueError("none of them is for its transformer")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{file}: these LoRA weights do not fit the model: {error}") from error
    if not knows_alpha:
        log.warning("%s does not say its alpha: applied at %g; DOVE's own trainer uses alpha / rank = 0.5", file, scale)
    pipe.fuse_lora(components=["transformer"], lora_scale=scale)
    pipe.unload_lora_weights()
