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


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code of the restoration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, default=SMALL_MODEL, help=f"default: {SMALL_MODEL}")
    parser.add_argument("--output_path", type=Path, default=Path("results/demo"))
    args = parser.parse_args(argv)
    folders = {"input_dir": DEMO / "LQ-Video", "gt_dir": DEMO / "GT-Video", "output_path": args.output_path}
    flags = [f"--{name}={value}" for name, value in {**folders, "model_path": args.model_path}.items()]
    code = inference_script.main([*flags, "--compare", "--overwrite", "--no-resume"])
    if code == 0:
        pictures = args.output_path / "compare"
        print(f"\nRestored videos:           {args.output_path}")
        print(f"Pictures to look at first: {pictures}/NAME.png (bicubic | restored | ground truth)")
        print(f"Side by side, in motion:   {pictures}/NAME.mp4")
        print("\nThis was the small model that ships with the repository. The full one restores far more; the section")
        print("'Models' of README.md says where it is. Put it into pretrained_models/DOVE, then run")
        print("  python inference_script.py --input_dir YOUR_VIDEOS --model_path pretrained_models/DOVE")
    return code


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
