"""Sharded training with FSDP2, on two CPU processes: torch can do it, though accelerate offers it on GPUs only."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import DistributedType
from safetensors.torch import load_file
from torch.testing import assert_close

from finetune import engine, train
from finetune.recipe import load_recipe
from finetune.scripts import prepare_sft_ckpt
from tests.media import clip
from tests.tiny import random_pipeline
from vsr import load_pipeline
from vsr.errors import UsageError

ROOT = Path(__file__).parent.parent

SCRIPT = """
import sys
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from finetune import engine, train

def sharded(**settings):
    accelerator = Accelerator(**settings)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["CogVideoXBlock"],
        state_dict_type="SHARDED_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # what a GPU would have made of it
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    return accelerator

engine.Accelerator = sharded
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "videos").mkdir()
    clip(tmp_path / "videos" / "one.mp4", size="64x64", seconds="0.8")
    random_pipeline().save_pretrained(tmp_path / "base")
    data = [f"data.videos={tmp_path / 'videos'}", "data.height=32", "data.width=32", "data.workers=0"]
    small = ["train.steps=3", "train.checkpoint_every=3", "train.warmup_steps=0", "train.lr=1.0e-4"]
    return [str(ROOT / "configs" / "toy_s1.yaml"), *data, *small, f"init_from={tmp_path / 'base'}"]


def train_sharded(flags, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29614"]
    return subprocess.run(
        [*command, str(tmp_path / "script.py"), *flags, f"output_dir={tmp_path / 'sharded'}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_shards_train_like_one_process_and_their_checkpoint_becomes_a_model(flags, tmp_path):
    done = train_sharded(flags, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es), FSDP" in done.stderr
    assert train.main([*flags, "train.batch_size=2", f"output_dir={tmp_path / 'whole'}"]) == 0
    assert prepare_sft_ckpt.main([f"--checkpoint_dir={tmp_path / 'sharded' / 'checkpoint-3'}", "--dtype=fp32"]) == 0
    file = "transformer/diffusion_pytorch_model.safetensors"
    whole, exported, prepared = (
        load_file(tmp_path / run / file) for run in ("whole/model", "sharded/model", "sharded/ckpt-3-sft")
    )
    assert_close(exported, whole, atol=1e-5, rtol=1e-5)
    assert_close(prepared, exported, atol=0, rtol=0)


def test_shards_of_a_lora_in_bf16_train_and_are_exported(flags, tmp_path):
    done = train_sharded([*flags, "train.precision=bf16", "train.lora.rank=2", "train.accumulation=2"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    load_pipeline(tmp_path / "sharded" / "model", "float32", "cpu")


def test_one_process_validates_shards_while_the_others_wait(flags, tmp_path):
    for folder, size in (("lq", "16x16"), ("gt", "64x64")):
        (tmp_path / folder).mkdir()
        clip(tmp_path / folder / "one.mp4", size=size, seconds="0.2")
        clip(tmp_path / folder / "two.mp4", size=size, seconds="0.2")  # a second forward, after the first has ended
    validation = [f"validation.lq={tmp_path / 'lq'}", f"validation.gt={tmp_path / 'gt'}", "validation.every=2"]
    done = train_sharded([*flags, *validation], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert train.main([*flags, *validation, "train.batch_size=2", f"output_dir={tmp_path / 'whole'}"]) == 0
    for step in ("step-2", "step-3"):
        files = [tmp_path / run / "validation" / step / "metrics.json" for run in ("sharded", "whole")]
        sharded, whole = (json.loads(file.read_text())["average"] for file in files)
        assert sharded["psnr"]["mean"] == pytest.approx(whole["psnr"]["mean"], rel=5e-5)  # a step changes it by 5e-4
        # SSIM of a random model's noise: the number of threads alone moves it by 2e-4 through single rounded pixels
        assert sharded["ssim"]["mean"] == pytest.approx(whole["ssim"]["mean"], abs=1e-3)
        assert not (files[0].parent / "rank-1").exists()
    file = "model/transformer/diffusion_pytorch_model.safetensors"
    assert_close(*(load_file(tmp_path / run / file) for run in ("sharded", "whole")), atol=1e-5, rtol=1e-5)


def test_an_average_of_shards_is_refused(flags, tmp_path, monkeypatch, caplog):
    shards = SimpleNamespace(distributed_type=DistributedType.FSDP)
    monkeypatch.setattr(engine, "Accelerator", lambda **_: shards)
    assert train.main([*flags, "train.ema_decay=0.9", f"output_dir={tmp_path / 'run'}"]) == 2
    assert "ema_decay: an average needs whole weights" in caplog.text


def test_a_vae_is_not_cut_up_as_a_transformer_would_be():
    recipe = load_recipe(ROOT / "configs" / "tiny" / "vae.yaml", [])
    with pytest.raises(UsageError, match=r"not a VAE.*ddp\.yaml"):
        engine.check_sharding(DistributedType.FSDP, recipe)


def test_deepspeed_looks_for_gradients_that_are_not_finite_before_it_applies_them():
    settings = {"bf16": {"enabled": True}}
    plugin = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=settings))
    stand_in = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, is_fsdp2=False, state=plugin)
    engine.configure(stand_in, load_recipe(ROOT / "configs" / "dove_s1.yaml", []).train)
    assert settings["bf16"] == {"enabled": True, "check_grad_overflow": True}
    assert settings["gradient_clipping"] > 0
