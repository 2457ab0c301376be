"""Metadata of shards: what torch writes is let through, anything else is refused before torch unpickles it."""

import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp

from finetune.scripts.prepare_sft_ckpt import read_weights
from finetune.shard_metadata import refuse_foreign_metadata
from vsr.errors import InputError


class Malicious:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


@pytest.fixture
def shards(tmp_path) -> Path:
    folder = tmp_path / "pytorch_model_fsdp_0"
    tensors = {"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.ones(2).int()}
    dcp.save({"model": tensors, "step": 3}, checkpoint_id=folder)
    return folder


def test_what_torch_writes_is_let_through(shards):
    assert (shards / ".metadata").is_file()
    refuse_foreign_metadata(shards.parent)


def test_code_in_it_is_named_and_not_run(shards):
    marker = shards / "marker"
    (shards / ".metadata").write_bytes(pickle.dumps({"a": Malicious(marker)}))
    with pytest.raises(InputError, match="asks for"):
        read_weights(shards.parent)
    assert not marker.exists()


def test_names_that_lead_further_are_refused(shards):
    module = "torch.distributed.checkpoint.filesystem"
    (shards / ".metadata").write_bytes(
        b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c\x09os.system\x93."
    )
    with pytest.raises(InputError, match=r"asks for .*os\.system"):
        refuse_foreign_metadata(shards.parent)


def test_a_cut_off_file_is_named(shards):
    path = shards / ".metadata"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="metadata: is not what torch writes"):
        refuse_foreign_metadata(shards.parent)
