"""Turn a training checkpoint into a model folder that inference_script.py loads.

    python finetune/scripts/prepare_sft_ckpt.py --checkpoint_dir checkpoint/DOVE-s1/checkpoint-10000

The end of a training does this by itself (folder ``model`` of the run); this is for a checkpoint before the end.
Weights that ZeRO or FSDP cut into shards are merged with the libraries' own tools.
"""

import argparse
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # called by its path, as DOVE's README does

from finetune.checkpoint import NAME, STATE
from finetune.engine import DTYPES
from finetune.export import export
from finetune.recipe import Recipe, load_recipe
from finetune.shard_metadata import refuse_foreign_metadata
from finetune.train import build_method, quiet_diffusers
from finetune.trainable import trainable
from vsr.errors import ModelError, UsageError, VSRError
from vsr.pipelines import find_model

log = logging.getLogger("finetune")

ROOT = Path(__file__).resolve().parents[2]
"""Paths in a recipe are relative to this, the root of the repository."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint_dir", type=Path, required=True, help="a folder checkpoint-N of a run")
    parser.add_argument("--ckpt_output_dir", type=Path, help="default: checkpoint-N becomes ckpt-N-sft, beside it")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16", help="of the stored weights (default: bf16)")
    parser.add_argument("--weights_source", type=Path, help="the model the run started from, if it has moved")
    parser.add_argument("--no_ema", action="store_true", help="the last weights, even if the run has averaged ones")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Convert; returns the exit code."""
    args = parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    quiet_diffusers()
    try:
        folder = convert(
            args.checkpoint_dir,
            args.ckpt_output_dir,
            DTYPES[args.dtype],
            source=args.weights_source,
            use_ema=not args.no_ema,
        )
    except VSRError as error:
        log.error("error: %s", error)
        return error.exit_code
    log.info("the model is in %s; use it with inference_script.py --model_path %s", folder, folder)
    return 0


def convert(
    checkpoint: Path, folder: Path | None, dtype: torch.dtype, *, source: Path | None = None, use_ema: bool = True
) -> Path:
    """Write the model folder of a checkpoint; returns it.

    Args:
        source: where the model that the run started from is now; None: where the recipe says.

    Raises:
        UsageError: not a checkpoint, or the folder exists already.
        ModelError: the model that the run started from is gone.
    """
    checkpoint = checkpoint.absolute()  # even "." has a name then
    recipe_file = checkpoint.parent / "recipe.yaml"
    if not NAME.fullmatch(checkpoint.name) or not (checkpoint / STATE).is_file() or not recipe_file.is_file():
        raise UsageError(f"{checkpoint}: expected a folder checkpoint-N of a run, with {STATE}, beside recipe.yaml")
    folder = folder or checkpoint.with_name(checkpoint.name.replace("checkpoint-", "ckpt-") + "-sft")
    if folder.exists():
        raise UsageError(f"{folder} exists already; remove it or give another --ckpt_output_dir")
    method = build_method(_recipe_for_export(recipe_file, source, dtype), torch.device("cpu"))
    student = method.networks["student"]
    weights = read_weights(checkpoint)
    student.load_state_dict(weights)
    averages = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True).get("ema")
    if averages and use_ema:
        for parameter, average in zip(trainable(student), averages["shadow_params"], strict=True):
            parameter.data.copy_(average)
    export(method.pipe, student.state_dict(), folder, dtype, method.component)
    return folder


def _recipe_for_export(path: Path, source: Path | None, dtype: torch.dtype) -> Recipe:
    """The recipe of the run without what an export does not need, its paths as seen from here.

    Its precision is that of the export: that of the training would have rounded the parts that do not learn.
    """
    recipe = load_recipe(path, [])
    (precision,) = (name for name, known in DTYPES.items() if known == dtype)
    recipe = replace(recipe, train=replace(recipe.train, precision=precision))
    if recipe.loss:
        recipe = replace(recipe, loss=replace(recipe.loss, perceptual="none"))
    here = ROOT / recipe.init_from  # the run was launched from there
    found = source or (here if here.is_dir() else recipe.init_from)
    try:
        return replace(recipe, init_from=find_model(str(found)))
    except ModelError as error:
        raise ModelError(f"{error}; if the model that the run started from has moved, give --weights_source") from error


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The student's state dict, from whatever the engine of the run has written."""
    whole = checkpoint / "model.safetensors"
    if whole.is_file():
        return load_file(whole)
    if (checkpoint / "pytorch_model_fsdp_0").is_dir():
        from accelerate.utils import merge_fsdp_weights

        refuse_foreign_metadata(checkpoint)
        with tempfile.TemporaryDirectory(dir=checkpoint.parent) as merged:
            merge_fsdp_weights(str(checkpoint / "pytorch_model_fsdp_0"), merged, safe_serialization=True)
            return {
                name: tensor for file in Path(merged).glob("*.safetensors") for name, tensor in load_file(file).items()
            }
    if (checkpoint / "pytorch_model").is_dir():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        return get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag="pytorch_model")
    raise UsageError(f"{checkpoint}: holds no weights: neither model.safetensors nor shards of FSDP or ZeRO")


if __name__ == "__main__":
    sys.exit(main())
