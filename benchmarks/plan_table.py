"""What fits on which card: the plan for each size of frames, counted from the configuration of the real model.

    python -m benchmarks.plan_table

CogVideoX1.5-5B in bfloat16, windows of 33 frames. Nothing is run and no weights are needed: memory is counted in tensor
bytes on torch's meta device. Of a card a tenth is left to the allocator and the workspace of kernels.
"""

import argparse

import torch
from tqdm import tqdm

from benchmarks.architectures import ARCHITECTURES
from vsr.budget import MARGIN, Budget
from vsr.costs import Architecture, weights
from vsr.errors import OutOfMemoryError
from vsr.planner import Forecast, Planner
from vsr.settings import RestoreSettings
from vsr.windows import Grid

CARDS = (8, 12, 16, 24, 48, 80)
"""Memory in GB."""
SIZES = {"480p": (480, 848), "720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560), "4K": (2160, 3840)}
"""Height and width of the result by name."""


def planner_for(gigabytes: int) -> Planner:
    """For a card whose memory is all free."""
    configs = dict(zip(("vae", "transformer"), ARCHITECTURES["cogvideox1.5-5b"], strict=True))
    return Planner(
        architecture=Architecture.of(configs, torch.bfloat16, "cuda"),
        budget=Budget(device=int(MARGIN * gigabytes * 1e9)),
        grid=Grid(multiple=16, step=8),
        settings=RestoreSettings(scale=1),
        scale=1,
    )


def cell(gigabytes: int, size: tuple[int, int]) -> str:
    """The kind of the plan, what it takes on the card and beside it, and what becomes smaller."""
    planner = planner_for(gigabytes)
    try:
        forecast = planner.choose(*size, planner.settings.window)
    except OutOfMemoryError:
        return "does not fit"
    return f"{forecast.plan.kind}, {forecast.device / 1e9:.1f} + {forecast.host / 1e9:.0f}{_smaller(forecast)}"


def _smaller(forecast: Forecast) -> str:
    plan = forecast.plan
    parts = [f"{plan.tile[1]}x{plan.tile[0]}" if plan.tile else "", f"{plan.window} frames" if plan.window else ""]
    return "".join(f", {part}" for part in parts if part)


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    rows = []
    for gigabytes in tqdm(CARDS[::-1], unit="card"):  # the large ones first: they need the fewest plans
        rows.insert(0, [f"{gigabytes} GB", *(cell(gigabytes, size) for size in SIZES.values())])
    print("| card | " + " | ".join(f"{name}, {w}x{h}" for name, (h, w) in SIZES.items()) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    known = weights(planner_for(CARDS[0]).architecture)
    print(f"\nThe weights alone: {(known.vae + known.transformer) / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
