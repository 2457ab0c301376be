"""Encode the samples of stage 1 once, so that training neither decodes nor degrades nor encodes.

    python -m finetune.scripts.cache_latents configs/dove_s1.yaml --degradations 4 data.latent_cache=datasets/cache
    torchrun --nproc_per_node 8 -m finetune.scripts.cache_latents ...                  on all GPUs

Writes the first DEGRADATIONS samples of every clip, each with its own window, crop and degradation: exactly those that
training would make. Train with the same recipe and the same data.latent_cache. The same command again goes on where an
interrupted one stopped, and a larger --degradations adds to what is there. Processes share nothing but the folder.
Exit codes: 0 done; 2 wrong recipe; 3 data cannot be read; 5 the model is missing; 130 interrupted.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch.utils.data import DataLoader
from tqdm import tqdm

from finetune.checks import check_model, latent_folder
from finetune.data.dataset import PairDataset
from finetune.data.latents import missing_samples, write_count, write_sample
from finetune.data.sampler import PATIENCE, start_worker
from finetune.engine import DTYPES
from finetune.recipe import Recipe, load_recipe
from finetune.train import end_workers, own_words, quiet_diffusers
from vsr import codec
from vsr.errors import INTERRUPTED, UsageError, VSRError
from vsr.memory import keep_freed_memory
from vsr.pipelines import find_model

log = logging.getLogger("finetune")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="YAML file of configs/, of stage 1")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="those of the training")
    parser.add_argument("--degradations", type=int, default=4, help="samples per clip (default: 4)")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fill the cache; returns the exit code."""
    args = parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    quiet_diffusers()
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    try:
        recipe = load_recipe(args.recipe, args.overrides)
        if recipe.data.latent_cache is None or args.degradations < 1:
            raise UsageError("give data.latent_cache=FOLDER, where the latents go, and --degradations of at least 1")
        check_model(recipe)
        folder = cache(recipe, args.degradations, rank, world_size)
    except VSRError as error:
        log.error("error: %s", own_words(error))
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on")
        return INTERRUPTED
    finally:
        end_workers()
    log.info("process %d of %d: its samples are in %s", rank + 1, world_size, folder)
    return 0


@torch.no_grad()
def cache(recipe: Recipe, degradations: int, rank: int = 0, world_size: int = 1) -> Path:
    """Encode this process's share of what is missing; returns the folder."""
    folder, data = latent_folder(recipe), PairDataset(recipe.data, recipe.train.seed)
    count = degradations * data.num_files("video")
    folder.mkdir(parents=True, exist_ok=True)
    write_count(folder, count, rank)
    share = range(rank, count, world_size)
    todo = missing_samples(folder, share)
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    vae = AutoencoderKLCogVideoX.from_pretrained(find_model(str(recipe.init_from)) / "vae", local_files_only=True)
    vae.requires_grad_(False).eval().to(device, DTYPES[recipe.train.precision])
    workers = recipe.data.workers
    loader = DataLoader(
        data,
        sampler=[("video", n) for n in todo],
        batch_size=None,
        num_workers=workers,
        worker_init_fn=start_worker,
        timeout=PATIENCE if workers else 0,
        generator=torch.Generator(),
    )
    bar = tqdm(total=len(share), initial=len(share) - len(todo), unit="sample", dynamic_ncols=True, disable=rank > 0)
    with bar:
        for n, sample in zip(todo, loader, strict=True):
            pixels = {"z_lq": sample["x_lq"], "z_gt": sample["x_gt"]}
            write_sample(folder, n, {name: codec.encode(vae, x[None].to(device))[0] for name, x in pixels.items()})
            bar.update()
    return folder


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
