"""What curating a million clips costs, from counted operations; nothing is run, no weights are needed.

    python -m benchmarks.curation_cost [--clips 430000] [--frames 200] [--height 1080 --width 1920] [--tflops 40]
        [--decode_fps 100]

Operations of the networks are counted on shapes. --tflops is what a GPU is taken to sustain on them, and --decode_fps
what a CPU core is taken to decode: both are assumptions to be replaced by your own numbers. Every clip is taken to
reach every stage, which is the upper bound.
"""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.optical_flow import raft_large

from vsr.metrics.dover import Dover
from vsr.metrics.fastervqa import FasterVQA
from vsr.metrics.flow import raft_flow

PAIRS, CLIPIQA_FRAMES, FLOW_SIDE = 8, 8, 384
"""As in configs/curation/hq_vsr.yaml."""
DECODINGS = 3
"""Stages that decode: scenes, quality and motion."""


def operations(height: int, width: int) -> dict[str, float]:
    """Floating-point operations per clip, by network."""
    from pyiqa.archs.clip_model import ModifiedResNet

    with torch.device("meta"), torch.no_grad():
        fragments, frame = torch.empty(1, 3, 32, 224, 224), torch.empty(1, 3, height, width)
        small = torch.empty(1, 3, FLOW_SIDE, round(FLOW_SIDE * width / height / 8) * 8)
        faster, dover, flow = FasterVQA().eval(), Dover().eval(), raft_flow(raft_large(weights=None).eval())
        clip = ModifiedResNet((3, 4, 6, 3), output_dim=1024, heads=32, width=64).eval()
        return {
            "FasterVQA": counted(lambda: faster.vqa_head(faster.fragments_backbone(fragments))),
            "DOVER, technical": 3 * counted(lambda: dover.technical_head(dover.technical_backbone(fragments))),
            "DOVER, aesthetic": counted(lambda: dover.aesthetic_head(dover.aesthetic_backbone(fragments))),
            "CLIP-IQA": CLIPIQA_FRAMES * counted(lambda: clip(frame)),
            "RAFT": PAIRS * counted(lambda: flow(small, small)),
        }


def counted(work) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("clips", 430_000), ("frames", 200), ("height", 1080), ("width", 1920)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("tflops", 40.0), ("decode_fps", 100.0)):
        parser.add_argument(f"--{name}", type=float, default=value)
    args = parser.parse_args()
    total = 0.0
    for name, count in operations(args.height, args.width).items():
        total += count
        print(f"{name}: {count / 1e12:.3f} TFLOP per clip")
    hours = total * args.clips / (args.tflops * 1e12) / 3600
    print(f"{args.clips} clips: {total / 1e12:.2f} TFLOP each, {hours:.0f} GPU hours at {args.tflops:g} TFLOP/s")
    decoding = DECODINGS * args.clips * args.frames / args.decode_fps / 3600
    print(f"decoding {args.frames} frames in {DECODINGS} stages: {decoding:.0f} core hours at {args.decode_fps:g} fps")


if __name__ == "__main__":
    main()
