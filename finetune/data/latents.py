"""The latent cache of stage 1: samples encoded once, by finetune.scripts.cache_latents, and read in every later run.

FOLDER/<key>/NNNNNN.safetensors holds z_lq and z_gt of sample NNNNNN, exactly the one that the loader would make. The
key is a hash of all that decides about them, so that a cache made from anything else is never read by mistake.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.data.config import DataConfig
from finetune.data.degradation import load_degradation
from finetune.data.keys import Kind, Purpose, keyed_generator
from finetune.data.sources import load_sources
from vsr.errors import InputError

VERSION = 6
"""To be raised whenever finetune/data or the VAE's path makes other samples of the same recipe."""
COUNT = "samples.json"
"""How many samples the cache is meant to hold."""


def cache_key(config: DataConfig, seed: int, model: Path, dtype: torch.dtype) -> str:
    """Hash of the data section, its files and degradation, the seed, the VAE, its precision and `VERSION`.

    Args:
        model: folder of the model whose VAE encodes.
        dtype: that the VAE runs in.
    """
    ignored = ("workers", "latent_cache", "latent_crop", "latent_seed", "videos", "images")
    facts = {name: value for name, value in asdict(config).items() if name not in ignored}
    sources = load_sources(config.videos, "video")
    files = [(s.path.name, s.path.stat().st_size, *(p for p in (s.span, s.box) if p)) for s in sources]
    presets = [asdict(load_degradation(name)) for name in (config.degradation, "area")]
    facts |= {"degradation": presets, "files": files, "seed": seed}
    facts |= {"dtype": str(dtype), "version": VERSION}
    architecture = json.loads((model / "vae" / "config.json").read_text())
    facts["vae"] = {name: value for name, value in architecture.items() if not name.startswith("_")}  # notes of paths
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for path in sorted((model / "vae").glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class LatentCache(torch.utils.data.Dataset):
    """Samples by key ("video", n), as `PairDataset` has them, but as latents.

    After the last sample come all of them again, each time in another order and, with ``crop``, with another part of
    each: a sample that is never twice at the same place on the grid of tokens is harder to learn by heart. A training
    that is resumed after its cache has grown goes on with other samples than it would have seen.

    Args:
        folder: of one key, as the script has written it.
        seed: of the order and of the parts.
        command: what to run when the cache is not complete.
        crop: height and width of a part, as fractions of a sample; None: all of it.

    Raises:
        InputError: the cache is missing or incomplete.
    """

    def __init__(self, folder: Path, seed: int, command: str, crop: tuple[Fraction, Fraction] | None = None) -> None:
        self._folder, self._seed, self._crop = folder, seed, crop
        if not (folder / COUNT).is_file():
            raise InputError(f"{folder}: no latents of this recipe, model and code; make them with\n    {command}")
        self._count = read_count(folder)
        if missing := missing_samples(folder, range(self._count)):
            raise InputError(f"{folder}: {len(missing)} of {self._count} samples are missing; run again\n    {command}")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: tuple[Kind, int]) -> dict[str, Tensor | str]:
        """z_lq and z_gt: (C, f, h, w), scaled, in the dtype of the VAE; kind: "video"."""
        kind, n = key
        turn, place = divmod(n, self._count)
        if turn:
            place = int(keyed_generator(Purpose.LATENT, self._seed, kind, turn).permutation(self._count)[place])
        path = sample_path(self._folder, place)
        try:
            latents = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: is damaged ({error}); delete it and fill the cache again") from error
        if self._crop:
            rows, columns = self._part(latents["z_gt"].shape, keyed_generator(Purpose.LATENT_CROP, self._seed, kind, n))
            latents = {name: z[..., rows, columns] for name, z in latents.items()}
        return {**latents, "kind": kind}

    def _part(self, shape: torch.Size, rng: np.random.Generator) -> Iterator[slice]:
        """Random rows and columns of ``crop``, the same for low quality and ground truth."""
        for whole, part in zip(shape[-2:], self._crop, strict=True):
            length = int(whole * part)
            start = int(rng.integers(whole - length + 1))
            yield slice(start, start + length)


def sample_path(folder: Path, n: int) -> Path:
    """The file of sample n."""
    return folder / f"{n:06d}.safetensors"


def missing_samples(folder: Path, numbers: range) -> list[int]:
    """Those of ``numbers`` that are not there yet."""
    there = {path.name for path in folder.iterdir()}
    return [n for n in numbers if sample_path(folder, n).name not in there]


def write_sample(folder: Path, n: int, latents: dict[str, Tensor]) -> None:
    """Write the latents of sample n, complete or not at all."""
    temporary = folder / f".{n:06d}.incomplete"
    save_file({name: z.contiguous().cpu() for name, z in latents.items()}, temporary)
    temporary.replace(sample_path(folder, n))


def read_count(folder: Path) -> int:
    """Samples that the cache is meant to hold; 0: none yet."""
    file = folder / COUNT
    return json.loads(file.read_text())["samples"] if file.is_file() else 0


def write_count(folder: Path, count: int, process: int) -> None:
    """Say how many samples the cache is meant to hold; a number that is already larger stays."""
    temporary = folder / f".{COUNT}.{process}"
    temporary.write_text(json.dumps({"samples": max(count, read_count(folder))}) + "\n")
    temporary.replace(folder / COUNT)
