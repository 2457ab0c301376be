"""The metadata of sharded checkpoints (torch.distributed.checkpoint), looked at before torch unpickles them.

They are a pickle that torch reads whatever it holds; this reads it first, with nothing allowed but what torch writes.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from vsr.errors import InputError

_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
_METADATA_NAMES = (
    *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata"),
    *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
)
KNOWN = {
    *((_METADATA, name) for name in _METADATA_NAMES),
    (_FILES, "_StorageInfo"),
    *(("pathlib", name) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(("torch", name) for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    *(("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")),
}
"""Module and name of everything that such a file may ask for."""


def refuse_foreign_metadata(checkpoint: Path) -> None:
    """Raise InputError when metadata below a checkpoint's folder ask for anything that torch does not write."""
    for path in sorted(checkpoint.rglob(".metadata")):
        try:
            with path.open("rb") as file:
                _Checking(file).load()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        except Exception as error:
            raise InputError(f"{path}: is not what torch writes beside shards, so it is not opened: {error}") from error


class _Checking(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)
