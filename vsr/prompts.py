"""Prompt embeddings. The one of the empty prompt travels with the model, so the text encoder (9.5 GB) is hardly needed.

An embedding is looked for in ``MODEL/prompt_embeddings/<sha256 of the prompt>.safetensors`` (key ``prompt_embedding``,
(L, D)), then in ``MODEL/../prompt_embeddings/``, where the published DOVE keeps it. Only when both lack it is the text
encoder loaded, used and dropped.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vsr.errors import ModelError

log = logging.getLogger(__name__)

FOLDER = "prompt_embeddings"
KEY = "prompt_embedding"


def embedding_name(prompt: str) -> str:
    """File name of the embedding of a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest() + ".safetensors"


def find_embedding(model: Path, prompt: str = "") -> Path | None:
    """The stored embedding of ``prompt``, or None."""
    places = [model / FOLDER / embedding_name(prompt), model.parent / FOLDER / embedding_name(prompt)]
    return next((place for place in places if place.is_file()), None)


def check_prompts(model: Path, prompts: Iterable[str]) -> None:
    """Raise ModelError when a prompt has neither a stored embedding nor a text encoder. Loads nothing."""
    missing = [prompt for prompt in prompts if not find_embedding(model, prompt)]
    if missing and not all((model / part).is_dir() for part in ("text_encoder", "tokenizer")):
        raise ModelError(
            f"{model}: no embedding of the prompt {missing[0]!r} and no text encoder to compute it with; expected "
            f"{model / FOLDER / embedding_name(missing[0])}, the same file in {model.parent / FOLDER}, or the folders "
            f"text_encoder and tokenizer of CogVideoX"
        )


def prompt_embeddings(model: Path, prompts: Iterable[str], max_length: int) -> dict[str, Tensor]:
    """Embeddings (1, L, D) of all ``prompts``: stored ones are read, the rest computed with one load of the encoder."""
    wanted = dict.fromkeys(prompts)
    check_prompts(model, wanted)
    found = {prompt: place for prompt in wanted if (place := find_embedding(model, prompt))}
    result = {prompt: read_embedding(place) for prompt, place in found.items()}
    missing = [prompt for prompt in wanted if prompt not in found]
    if missing:
        result |= _encode(model, missing, max_length)
    if "" in missing:
        _store_if_possible(model, result[""])
    return result


def read_embedding(path: Path) -> Tensor:
    """(1, L, D) from a file that holds (L, D)."""
    try:
        embedding = load_file(path)[KEY]
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"{path}: expected a safetensors file with the key {KEY!r}, got {error}") from error
    if embedding.ndim != 2 or not embedding.is_floating_point():
        raise ModelError(f"{path}: {KEY} must be floats (L, D), got {embedding.dtype} {tuple(embedding.shape)}")
    return embedding[None]


def write_embedding(folder: Path, prompt: str, embedding: Tensor) -> Path:
    """Store an embedding (1, L, D) under its name; complete or not at all."""
    target = folder / FOLDER / embedding_name(prompt)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    save_file({KEY: embedding[0].contiguous()}, temporary)
    temporary.replace(target)
    return target


def _store_if_possible(model: Path, embedding: Tensor) -> None:
    try:
        log.info("stored the embedding of the empty prompt in %s", write_embedding(model, "", embedding))
    except OSError as error:
        log.warning("could not store the embedding of the empty prompt (%s): the next run computes it again", error)


@torch.no_grad()
def _encode(model: Path, prompts: list[str], max_length: int) -> dict[str, Tensor]:
    """Run T5 once over all prompts, padded to ``max_length`` and without a mask, as CogVideoX was trained."""
    from transformers import T5EncoderModel, T5Tokenizer  # never AutoTokenizer: a folder can tell it to run its code

    log.info("loading the text encoder of %s for %d prompt(s)", model, len(prompts))
    try:
        tokenizer = T5Tokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
        encoder = T5EncoderModel.from_pretrained(
            model / "text_encoder", dtype=torch.bfloat16, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{model}: the text encoder cannot be loaded: {error}") from error
    options = {"padding": "max_length", "max_length": max_length, "truncation": True, "return_tensors": "pt"}
    return {prompt: encoder(tokenizer(prompt, **options).input_ids)[0] for prompt in prompts}
