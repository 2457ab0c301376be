"""`make demo`: restore the clips of datasets/demo on any machine, compare them with ground truth, say what to look at.

python -m finetune.scripts.demo [--model_path MODEL] [--output_path DIR]
"""

import argparse
import sys
from pathlib import Path

import inference_script
from vsr.memory import keep_freed_memory

DEMO = Path("datasets/demo")
SMALL_MODEL = Path("pretrained_models/tiny")

FEWER_TILES = ("--overlap_hw", "28", "28")
"""Than with the overlap that the model asks for: 20 a clip, not 35."""

WHAT_TO_SEE = """
Look at these first:
  {output}/compare/*.png   one frame of each clip: bicubic | restored | ground truth
  {output}/compare/*.mp4   the same as videos, side by side
  {output}/*.mp4           the restored videos

Your own videos with this small model (its card, {model}/README.md, says what to expect):
  python inference_script.py --input_dir YOUR_VIDEOS --model_path {model} --output_path results/mine --compare

The full model, for a GPU: the section "Models" of README.md says where DOVE is and how its folder must look; then
  python inference_script.py --input_dir YOUR_VIDEOS --model_path pretrained_models/DOVE --output_path results/mine"""


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code of the restoration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, default=SMALL_MODEL, help="default: %(default)s")
    parser.add_argument("--output_path", type=Path, default=Path("results/demo"))
    args = parser.parse_args(argv)
    folders = {"input_dir": DEMO / "LQ-Video", "gt_dir": DEMO / "GT-Video", **vars(args)}
    flags = [f"--{name}={folder}" for name, folder in folders.items()]
    code = inference_script.main([*flags, *FEWER_TILES, "--compare", "--overwrite", "--no-resume"])
    if code == 0:
        print(WHAT_TO_SEE.format(output=args.output_path, model=args.model_path))
    return code


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
