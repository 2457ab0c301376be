"""What a VAE alone makes of clips: the ceiling of every model that works in its latents.

    python -m benchmarks.reconstruction --model_path MODEL --input_dir FOLDER [--frames 17]

Prints a table in Markdown: PSNR of each clip after encoding and decoding, and of its first and last frame, which tells
whether a causal VAE drifts.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from vsr import codec
from vsr.frames import to_lq
from vsr.memory import keep_freed_memory
from vsr.restore_file import pixels_of
from vsr.video_io import find_inputs, probe


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKLCogVideoX, frames: list[np.ndarray]) -> Tensor:
    """PSNR in dB of each frame (RGB, of levels in [0, 255], not rounded), on the device of the VAE.

    Args:
        frames: (H, W, 3) uint8; as many, as high and as wide as the VAE takes.
    """
    size = frames[0].shape[:2]
    x = to_lq(frames, size, size, "bilinear").to(vae.device)
    again = codec.decode(vae, codec.encode(vae, x)).float().clamp(-1, 1)
    return -10 * torch.log10((again - x).square().mean(dim=(0, 1, 3, 4)) / 4)


def over_all(psnr: Tensor) -> float:
    """PSNR of a clip, from those of its frames."""
    return -10 * torch.log10((10 ** (-psnr / 10)).mean()).item()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, required=True, help="folder of a model, with its folder vae")
    parser.add_argument("--input_dir", type=Path, required=True, help="clips, good ones")
    parser.add_argument("--frames", type=int, default=17, help="of each clip, 8k+1")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    vae = AutoencoderKLCogVideoX.from_pretrained(args.model_path / "vae", dtype=torch.float32).eval().to(args.device)
    print("| clip | PSNR, dB | first frame | last frame |\n|---|---|---|---|")
    totals = []
    for path in find_inputs(args.input_dir):
        frames = [frame for frame, _ in zip(pixels_of(probe(path)), range(args.frames), strict=False)]
        psnr = reconstruction_psnr(vae, frames)
        totals.append(over_all(psnr))
        print(f"| {path.stem} | {totals[-1]:.2f} | {psnr[0]:.2f} | {psnr[-1]:.2f} |", flush=True)
    print(f"| mean | {np.mean(totals):.2f} | | |")


if __name__ == "__main__":
    keep_freed_memory()
    main()
