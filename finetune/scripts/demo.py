"""`make demo`: restore the clips of datasets/demo on any machine, compare them with ground truth, say what to look at.

python -m finetune.scripts.demo [--model_path MODEL] [--output_path DIR]
"""

import argparse
import sys
from pathlib import Path

import inference_script
from finetune.scripts.random_model import random_pipeline
from vsr.memory import keep_freed_memory

DEMO = Path("datasets/demo")
SMALL_MODEL = Path("pretrained_models/tiny")
RANDOM_MODEL = Path("results/random_model")

UNTRAINED = """
NOTE: of the small model only the VAE is trained yet, so the demo ran a RANDOMLY INITIALISED one. It shows that
everything works from file to file; the restored pictures are noise and their scores mean nothing.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code of the restoration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, help="default: the small model that ships with the repository")
    parser.add_argument("--output_path", type=Path, default=Path("results/demo"))
    args = parser.parse_args(argv)
    model, trained = args.model_path or SMALL_MODEL, True
    if not (model / "model_index.json").exists() and args.model_path is None:
        model, trained = RANDOM_MODEL, False
        random_pipeline().save_pretrained(model)
    folders = {"input_dir": DEMO / "LQ-Video", "gt_dir": DEMO / "GT-Video", "output_path": args.output_path}
    flags = [f"--{name}={value}" for name, value in {**folders, "model_path": model}.items()]
    code = inference_script.main([*flags, "--compare", "--overwrite", "--no-resume"])
    if code == 0:
        print(f"\nRestored videos:           {args.output_path}")
        print(f"Pictures to look at first: {args.output_path / 'compare'} (bicubic | restored | ground truth)")
        print("Full model: the section 'Models' of README.md says where it is; then run")
        print("  python inference_script.py --input_dir YOUR_VIDEOS --model_path pretrained_models/DOVE")
    if not trained:
        print(UNTRAINED)
    return code


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
