"""Files with weights that metrics need: where they belong, whether they are there and whole. Nothing is downloaded here
unless asked for."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch

from vsr.errors import ModelError

CHUNK = 1 << 22
TORCHVISION = "https://download.pytorch.org/models/"
PYIQA = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
CLIP = "https://openaipublic.azureedge.net/clip/models/"
RN50 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"


@dataclass(frozen=True, kw_only=True)
class HubWeight:
    """A file below torch's hub folder, ``$TORCH_HOME/hub``."""

    name: str
    folder: Literal["pyiqa", "checkpoints", "clip"] = "checkpoints"
    url: str | None = None
    """None: got by hand, from ``source``."""
    source: str = ""
    sha256: str | None = None
    """How the hash begins; by default what the name ends with, and None if it ends with no hash."""

    @property
    def expected_hash(self) -> str | None:
        in_name = re.search(r"-([0-9a-f]{8})\.\w+$", self.name)
        return self.sha256 or (in_name and in_name[1])

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / self.folder / self.name

    def download(self) -> None:
        if self.url is None:
            raise ModelError(f"{self.name} has to be put into {self.path.parent} by hand; it is in {self.source}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.url, str(self.path), hash_prefix=self.expected_hash)


@dataclass(frozen=True, kw_only=True)
class RepositoryWeight:
    """A file of a repository on Hugging Face's hub, in its cache ``$HF_HOME/hub``."""

    repository: str
    name: str = "model.safetensors"
    expected_hash: str | None = None

    @property
    def path(self) -> Path:
        """Where it is; where its repository belongs if it is not there."""
        from huggingface_hub import constants, try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, self.name)
        folder = Path(constants.HF_HUB_CACHE) / f"models--{self.repository.replace('/', '--')}"
        return Path(found) if isinstance(found, str) else folder / "snapshots" / "*" / self.name

    def download(self) -> None:
        from huggingface_hub import hf_hub_download

        hf_hub_download(self.repository, self.name)


Weight = HubWeight | RepositoryWeight


def complaint(weight: Weight) -> str | None:
    """What is wrong with a file, None if it can be used."""
    path = weight.path
    if not path.is_file():
        return f"missing: {path.name} in {path.parent}"
    found, expected = hash_of(path), weight.expected_hash
    if expected and not found.startswith(expected):
        return f"damaged: {path} has SHA-256 {found[:8]}..., expected {expected[:8]}..."
    if expected is None and path.suffix in (".pth", ".pt"):
        return _pickle_complaint(path)
    return None


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; read once as long as the file does not change."""
    status = path.stat()
    return _hash_of(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _pickle_complaint(path: Path) -> str | None:
    """A file that no hash vouches for may hold tensors only: pyiqa would run whatever else is in it."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        return f"damaged: {path} is no file of tensors: {str(error).splitlines()[0] if str(error) else 'it is empty'}"
    return None


def torchvision_file(name: str) -> HubWeight:
    return HubWeight(name=name, url=TORCHVISION + name)


def pyiqa_file(name: str) -> HubWeight:
    return HubWeight(name=name, folder="pyiqa", url=PYIQA + name)


ALEXNET = torchvision_file("alexnet-owt-7be5be79.pth")
VGG16 = torchvision_file("vgg16-397923af.pth")
CLIP_RN50 = HubWeight(name="RN50.pt", folder="clip", url=f"{CLIP}{RN50}/RN50.pt", sha256=RN50)
VIT_B8 = RepositoryWeight(repository="timm/vit_base_patch8_224.augreg2_in21k_ft_in1k")
RAFT = {
    "raft_large_C_T_V1": torchvision_file("raft_large_C_T_V1-22a6c225.pth"),
    "raft_large_C_T_SKHT_V2": torchvision_file("raft_large_C_T_SKHT_V2-ff5fadd5.pth"),
    "raft_small_C_T_V2": torchvision_file("raft_small_C_T_V2-01064c6d.pth"),
}
DOVER = HubWeight(name="DOVER.pth", source="release v0.1.0 of github.com/VQAssessment/DOVER")
FASTERVQA = HubWeight(
    name="FAST_VQA_3D_1_1.pth", source="release v2.0.0 of github.com/VQAssessment/FAST-VQA-and-FasterVQA"
)
