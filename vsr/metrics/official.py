"""Weight files of DOVER and FasterVQA, by the key names of their releases, into our networks."""

from pathlib import Path

import torch
from torch import nn

from vsr.errors import ModelError
from vsr.metrics.video_swin import VideoSwin, official_key


def official_names(network: nn.Module) -> dict[str, str]:
    """Our name of each tensor -> its name in the official file."""
    names = {}
    for key in network.state_dict():
        part, rest = key.split(".", 1)
        swin = isinstance(getattr(network, part), VideoSwin)
        names[key] = f"{part}.{official_key(rest)}" if swin else key
    return names


def load_official(network: nn.Module, path: Path) -> None:
    """Fill a network from a file of official names; every tensor of both must find its place.

    Raises:
        ModelError: the file has other tensors than the network.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    stored = stored.get("state_dict", stored)
    names = official_names(network)
    tables = {names[key]: value for key, value in network.state_dict().items() if key.endswith("position_index")}
    stored = tables | stored  # computed, so that a file may leave them out
    wrong = sorted(stored.keys() ^ set(names.values()))
    if wrong:
        raise ModelError(f"{path} is another network: {len(wrong)} tensors differ, among them {', '.join(wrong[:4])}")
    try:
        network.load_state_dict({ours: stored[theirs] for ours, theirs in names.items()})
    except RuntimeError as error:
        raise ModelError(f"{path} is another network: {error}") from error
