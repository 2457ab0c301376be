"""Restore videos, folders of frames and images with a one-step diffusion model.

    python inference_script.py --input_dir datasets/demo/LQ-Video --model_path pretrained_models/DOVE

Exit codes: 0 all restored; 1 a bug of ours; 2 a wrong setting; 3 the input cannot be read; 4 out of memory; 5 the model
is missing or broken; 6 the encoder failed; 7 some of several files failed (each is named); 130 interrupted.

Started N times by a launcher that sets RANK and WORLD_SIZE (torchrun --nproc_per_node N inference_script.py ...), the
processes share the files, and the windows of long files. Rank 0's exit code is then that of the batch.

This file is the command line; the work is in vsr/.
"""

import argparse
import logging
import os
import signal
import sys
from fractions import Fraction
from pathlib import Path
from types import FrameType

from tqdm.contrib.logging import logging_redirect_tqdm

from vsr.batch import Batch
from vsr.budget import parse_size
from vsr.color_fix import COLOR_FIXES
from vsr.devices import DTYPES
from vsr.errors import INTERRUPTED, UsageError, VSRError
from vsr.frames import UPSCALE_MODES
from vsr.memory import keep_freed_memory

log = logging.getLogger("vsr")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; flags that DOVE has keep their names and meaning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--input_dir", required=True, metavar="PATH", help="a video, an image, a folder of them, or a quoted glob")
    add("--model_path", default="pretrained_models/DOVE", help="model folder, or org/name on the Hugging Face hub")
    add("--output_path", type=Path, default=Path("results"), help="folder for the results (default: results)")
    add("--input_json", type=Path, help="JSON file {file name: prompt}; DOVE is trained with the empty prompt")
    folder_help = "what a folder of images only is; auto: one clip if the names are numbered, else separate images"
    add("--image_folder", choices=("auto", "clip", "images"), default="auto", help=folder_help)
    untagged_help = "matrix of video without colour tags; auto: BT.709 from 720 rows up"
    add("--untagged", choices=("auto", "601", "709"), default="auto", help=untagged_help)
    _add_size(parser.add_argument_group("size of the result", "at most one; without any, the scale of the model"))
    _add_model(parser.add_argument_group("model"))
    _add_windows(parser.add_argument_group("windows, tiles and memory"))
    _add_format(parser.add_argument_group("format of the result"))
    _add_running(parser.add_argument_group("running"))
    return parser.parse_args(argv)


def _add_size(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--upscale", type=float, help="factor, for example 4, 2.5 or 1 (restore without enlarging)")
    add("--size", type=_size, metavar="WxH", help="width and height in pixels")
    add("--short_side", type=int, help="shorter side in pixels; the aspect ratio is kept")
    add("--upscale_mode", choices=UPSCALE_MODES, help="interpolation (default: the model's, bilinear)")


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    dtype_help = "auto: bfloat16 where the hardware multiplies in it, else float32"
    add("--dtype", choices=("auto", *DTYPES), default="auto", help=dtype_help)
    add("--device", default="auto", help="auto, cuda, cuda:1, mps or cpu")
    add("--lora_path", type=Path, help="LoRA weights: a .safetensors file or a folder with one")
    add("--lora_scale", type=float, default=1.0, help="strength of the LoRA (default: 1)")
    add("--sr_noise_step", type=int, help="timestep of the one step (default: the model's, 399)")
    add("--noise_step", type=int, help="timestep of noise added first (default: the model's, 0: none)")
    add("--seed", type=int, default=42, help="of whatever is random; by default nothing is")


def _add_windows(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--chunk_len", type=int, default=33, help="frames per window, 8k+1 (small model: 2k+1; default: 33); 0: all")
    add("--overlap_t", type=int, help="frames that windows share, rounded up to such a number (default: 9; small: 3)")
    add("--scene_cut", choices=("auto", "off"), default="auto", help="auto: windows do not cross scene cuts")
    tile_help = "largest tile in output pixels; 0 0: no tiles, or as large as the model was trained for"
    add("--tile_size_hw", type=int, nargs=2, default=(0, 0), metavar=("H", "W"), help=tile_help)
    add("--overlap_hw", type=int, nargs=2, metavar=("H", "W"), help="pixels that tiles share (default: the model's)")
    memory_help = "most that may be used, for example 16GB (default: what is free on the device)"
    add("--max_memory", type=_memory, metavar="SIZE", help=memory_help)
    add("--is_vae_st", action="store_true", help="slice and tile inside the VAE, as diffusers does it")
    add("--is_cpu_offload", action="store_true", help="keep the transformer in host memory while it does not run")


def _add_format(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    formats = ("yuv420p", "yuv444p", "yuv420p10le", "rgb")
    format_help = "yuv420p (default) plays everywhere; rgb is lossless, in mkv"
    add("--save_format", choices=formats, default="yuv420p", help=format_help)
    add("--png_save", action="store_true", help="a folder of PNG files instead of a video")
    add("--crf", type=int, help="quality of the encoder, lower is better")
    add("--codec", choices=("libx264", "libx265"), default="libx264")
    add("--fps", type=_rate, help="frame rate instead of the source's; a folder of frames has 16")
    add("--no_audio", action="store_true", help="leave sound out")
    add("--color_fix", choices=COLOR_FIXES, default="none", help="wavelet: colours from the input")


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dry_run", action="store_true", help="check everything, print plan, memory and time; loads no weights")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="skip files that are done")
    add("--overwrite", action="store_true", help="replace results that were made with other settings")
    add("--json", action="store_true", help="progress as one JSON object a line on stdout")
    compare_help = "also write bicubic | restored | ground truth, a video and a PNG, into the folder compare"
    add("--compare", action="store_true", help=compare_help)
    add("--gt_dir", type=Path, help="ground truth: files with the same stems")
    add("--eval_metrics", default="", help="for example psnr,ssim; needs --gt_dir")


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for example 1920x1080, got {text!r}")
    return int(width), int(height)


def _memory(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        message = f"expected frames per second, for example 25 or 30000/1001, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def main(argv: list[str] | None = None) -> int:
    """Restore what the command line names; returns the exit code."""
    args = parse_args(argv)
    rank = os.environ.get("RANK", "")
    prefix = f"[rank {rank}] " if rank.isdigit() else ""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"{prefix}%(message)s")
    log.setLevel(logging.INFO)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with logging_redirect_tqdm():
            batch = Batch(args)
            return batch.print_plan() if args.dry_run else batch.run()
    except VSRError as error:
        log.error("error: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted: finished files are kept, and the same command goes on with the rest")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
