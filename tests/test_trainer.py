"""Training on a CPU at toy size: exact resume, processes, LoRA, averages, signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch.testing import assert_close

from finetune import checkpoint, engine, train
from finetune.methods.base import Method, Phase
from finetune.methods.dove_latent import DOVELatent
from finetune.recipe import LoraConfig, TrainConfig, ValidationConfig, load_recipe
from finetune.trainable import make_trainable, trainable
from finetune.trainer import Trainer
from finetune.validate import check_validation, validate
from tests.media import clip
from tests.tiny import batch, random_pipeline
from vsr import load_pipeline
from vsr.errors import UsageError, VSRError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for turn in (0, 120):
        clip(folder / f"{turn}.mp4", "-vf", f"hue=h={turn}", size="96x96", seconds="1")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "base"
    random_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def flags(videos, model, tmp_path):
    """Overrides of the toy recipe of stage 1 that make it small and put it into ``tmp_path``."""
    data = [f"data.videos={videos}", "data.height=32", "data.width=32", "data.workers=0"]
    small = ["train.steps=4", "train.log_every=1", "train.checkpoint_every=2", "train.warmup_steps=2"]
    return [
        str(ROOT / "configs" / "toy_s1.yaml"),
        f"init_from={model}",
        f"output_dir={tmp_path / 'run'}",
        *data,
        *small,
    ]


def losses(run):
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["latent/loss"] for entry in entries}


def test_a_norm_that_comes_as_a_number_is_logged(tmp_path, monkeypatch):
    """As DeepSpeed's does."""
    pipe = random_pipeline()
    pipe.vae.requires_grad_(False)
    make_trainable(pipe.transformer, None, torch.float32)
    accelerator = Accelerator(cpu=True)
    clip = accelerator.clip_grad_norm_
    monkeypatch.setattr(accelerator, "clip_grad_norm_", lambda *args: clip(*args).item())
    config = TrainConfig(steps=1, lr=2e-3, batch_size=1, warmup_steps=0, precision="fp32", log_every=1)
    assert Trainer(DOVELatent(pipe), config, accelerator, tmp_path).fit([batch(9)])
    assert json.loads((tmp_path / "log.jsonl").read_text())["latent/grad_norm/student"] > 0


class TwoNetworks(Method):
    """A student and a critic that take turns, as in DMD: each phase updates one of them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.networks = {"student": torch.nn.Linear(4, 4), "critic": torch.nn.Linear(4, 4)}
        self.phases = (
            Phase("critic", ("critic",), self.critic_loss, repeat=2),
            Phase("student", ("student",), self.student_loss, fresh_batch=False),
        )
        self.seen, self.steps, self.frozen = [], [], []

    def critic_loss(self, batch):
        self.seen.append(("critic", int(batch["n"])))
        self.frozen.append(not any(p.requires_grad for p in self.networks["student"].parameters()))
        return self.networks["critic"](self.networks["student"](batch["x"])).square().mean(), {}

    def student_loss(self, batch):
        self.seen.append(("student", int(batch["n"])))
        self.frozen.append(not any(p.requires_grad for p in self.networks["critic"].parameters()))
        return self.networks["critic"](self.networks["student"](batch["x"])).square().mean(), {}

    def end_step(self, step):
        self.steps.append(step)


def test_phases_run_in_order_with_their_own_networks_batches_and_repeats(tmp_path):
    method = TwoNetworks()
    config = TrainConfig(steps=2, lr=1e-2, batch_size=1, accumulation=2, warmup_steps=0, precision="fp32")
    trainer = Trainer(method, config, Accelerator(cpu=True, gradient_accumulation_steps=2), tmp_path)
    assert trainer.batches_per_step == 4
    trainer.fit([{"x": torch.ones(3, 4), "n": torch.tensor(n)} for n in range(8)])
    one_step = [("critic", 0), ("critic", 1), ("critic", 2), ("critic", 3), ("student", 2), ("student", 3)]
    assert method.seen == one_step + [(role, n + 4) for role, n in one_step]
    assert method.steps == [1, 2]
    assert all(method.frozen)


def test_accumulating_micro_batches_equals_one_large_batch(tmp_path):
    weights = []
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    for accumulation in (1, 2):
        method = TwoNetworks()
        method.phases = (Phase("student", ("student",), method.student_loss),)
        config = TrainConfig(
            steps=1, lr=1e-2, batch_size=1, accumulation=accumulation, precision="fp32", warmup_steps=0
        )
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        trainer = Trainer(method, config, accelerator, tmp_path / str(accumulation))
        (tmp_path / str(accumulation)).mkdir()
        trainer.fit([{"x": part, "n": torch.tensor(0)} for part in x.chunk(accumulation)])
        weights.append(method.networks["student"].weight.detach().clone())
    assert_close(weights[0], weights[1])


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(tmp_path):
    method = TwoNetworks()
    config = TrainConfig(steps=2, lr=1e-2, batch_size=1, precision="fp32", warmup_steps=0)
    method.phases = (Phase("student", ("student",), method.student_loss),)
    trainer = Trainer(method, config, Accelerator(cpu=True), tmp_path)
    bad = {"x": torch.full((3, 4), float("nan")), "n": torch.tensor(0)}
    trainer.fit([bad, {"x": torch.ones(3, 4), "n": torch.tensor(1)}])
    assert trainer.skipped == 1
    assert all(p.isfinite().all() for p in method.networks["student"].parameters())


def test_a_training_that_learns_nothing_is_an_error(tmp_path):
    method = TwoNetworks()
    config = TrainConfig(steps=2, lr=1e-2, batch_size=1, precision="fp32", warmup_steps=0)
    method.phases = (Phase("student", ("student",), method.student_loss),)
    bad = {"x": torch.full((3, 4), float("nan")), "n": torch.tensor(0)}
    with pytest.raises(VSRError, match="none of the last 2 gradients was finite"):
        Trainer(method, config, Accelerator(cpu=True), tmp_path).fit([bad, bad])


def test_there_is_a_checkpoint_before_a_validation(tmp_path):
    method = TwoNetworks()
    config = TrainConfig(steps=3, lr=1e-2, batch_size=1, precision="fp32", warmup_steps=0)
    method.phases = (Phase("student", ("student",), method.student_loss),)
    trainer = Trainer(method, config, Accelerator(cpu=True), tmp_path)
    found = {}
    trainer.fit(
        [{"x": torch.ones(3, 4), "n": torch.tensor(n)} for n in range(3)],
        lambda step: found.update({step: checkpoint.list_checkpoints(tmp_path)[-1].name}),
        lambda step: step == 2,
    )
    assert found == {2: "checkpoint-2"}


@pytest.mark.parametrize(
    "options",
    [
        ["data.workers=0", "train.ema_decay=0.9"],
        ["data.workers=2", "train.lora.rank=4", "train.lora.alpha=2"],
    ],
    ids=["full, average, no workers", "LoRA, two workers"],
)
def test_a_stopped_and_resumed_run_equals_an_unbroken_one_bit_for_bit(options, flags, tmp_path, monkeypatch):
    def stop_after_two(recipe, step):
        if step == 2 and "broken" in str(recipe.output_dir):
            os.kill(os.getpid(), signal.SIGUSR1)
        return False

    monkeypatch.setattr(train, "is_validated", stop_after_two)
    runs = {name: tmp_path / name for name in ("whole", "broken")}
    assert train.main([*flags, *options, f"output_dir={runs['whole']}"]) == 0
    assert train.main([*flags, *options, f"output_dir={runs['broken']}"]) == 130
    assert [path.name for path in checkpoint.list_checkpoints(runs["broken"])] == ["checkpoint-2"]
    assert train.main([*flags, *options, f"output_dir={runs['broken']}", "resume=latest"]) == 0
    assert losses(runs["whole"]) == losses(runs["broken"])
    for file in ("checkpoint-4/model.safetensors", "model/transformer/diffusion_pytorch_model.safetensors"):
        one, two = (load_file(run / file) for run in runs.values())
        assert all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())


def test_two_processes_equal_one_with_twice_the_batch(flags, tmp_path):
    single = [*flags, "train.batch_size=2", f"output_dir={tmp_path / 'one'}"]
    assert train.main(single) == 0
    double = [*flags, "train.batch_size=1", f"output_dir={tmp_path / 'two'}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29611"]
    done = subprocess.run(
        [*command, "-m", "finetune.train", *double], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one == pytest.approx(two, rel=1e-5)
    states = [load_file(tmp_path / run / "checkpoint-4" / "model.safetensors") for run in ("one", "two")]
    for name, weight in states[0].items():
        assert_close(states[1][name], weight, atol=1e-5, rtol=1e-5)


def test_stage_1_overfits_two_clips(model, videos, tmp_path):
    """To below a tenth of what returning the input would give."""
    from finetune.data.dataset import PairDataset

    config = load_recipe(
        ROOT / "configs" / "toy_s1.yaml", [f"data.videos={videos}", "data.height=32", "data.width=32"]
    ).data
    data = PairDataset(config, seed=0)
    sample = {name: torch.stack([data["video", n][name] for n in (0, 1)]) for name in ("x_lq", "x_gt")}
    pipe = load_pipeline(model, dtype="float32", device="cpu")
    z_lq, z_gt = (pipe.encode(sample[name]) for name in ("x_lq", "x_gt"))
    returning_the_input = (z_lq - z_gt).square().mean().item()
    make_trainable(pipe.transformer, None, torch.float32)
    settings = TrainConfig(steps=400, lr=4e-3, batch_size=2, warmup_steps=20, precision="fp32", schedule="cosine")
    trainer = Trainer(DOVELatent(pipe), settings, Accelerator(cpu=True), tmp_path)
    latents = {True: z_lq.detach(), False: z_gt.detach()}
    pipe.encode = lambda x: latents[torch.equal(x, sample["x_lq"])]  # the same every step: encoded once
    trainer.fit([sample] * 400)
    final = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["latent/loss"]
    assert final < 0.1 * returning_the_input


@pytest.mark.parametrize("network", ["vae", "transformer"])
def test_gradient_checkpointing_keeps_less_of_both_networks_when_the_recipe_says_so(network, flags):
    def kept_bytes(wanted):
        told = [*flags[1:], f"train.gradient_checkpointing={wanted}", "train.precision=fp32"]
        pipe = train.build_method(load_recipe(ROOT / "configs" / "toy_s2.yaml", told), torch.device("cpu")).pipe
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x)
        z = torch.randn(1, pipe.vae.config.latent_channels, 3, 4, 4, requires_grad=True)
        with hooks:
            pipe.decode(z) if network == "vae" else pipe.denoise(z)
        return sum(kept)

    assert kept_bytes("true") < 0.5 * kept_bytes("false")


def test_lora_trains_only_its_own_weights_in_float32():
    network = random_pipeline().transformer
    make_trainable(network, LoraConfig(rank=2, alpha=1), torch.bfloat16)
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    assert {p.dtype for p in trainable(network)} == {torch.float32}
    assert network.transformer_blocks[0].attn1.to_q.base_layer.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("target", "words"), [("to_kk", "no 'to_kk'; did you mean to_k"), ("o_q", "no 'o_q'"), ("nothing", "no 'nothing'$")]
)
def test_a_target_that_the_network_has_not_is_named(target, words):
    """peft trains what is left."""
    with pytest.raises(UsageError, match=words):
        make_trainable(random_pipeline().transformer, LoraConfig(target_modules=("to_q", target)), torch.bfloat16)
    make_trainable(random_pipeline().transformer, LoraConfig(target_modules=("attn1.to_q", "proj_out")), torch.bfloat16)


def test_an_exported_lora_equals_the_merged_model(flags, tmp_path, model):
    from vsr.pipelines.lora import fuse_lora

    assert train.main([*flags, "train.lora.rank=4", "train.lora.alpha=2", "train.lr=0.05"]) == 0
    exported = tmp_path / "run" / "model"
    merged, base = (load_pipeline(folder, "float32", "cpu") for folder in (exported, model))
    before = base.transformer.transformer_blocks[0].attn1.to_q.weight.detach().clone()
    fuse_lora(base, exported / "lora")  # its alpha is in the file
    after = base.transformer.transformer_blocks[0].attn1.to_q.weight
    assert not torch.equal(after, before)
    assert_close(after, merged.transformer.transformer_blocks[0].attn1.to_q.weight)


def test_the_average_is_what_is_exported(flags, tmp_path):
    assert train.main([*flags, "train.ema_decay=0.5"]) == 0
    exported = load_file(tmp_path / "run" / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    last = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    name = "transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(exported[name], last[name])
    assert_close(exported[name], last[name], atol=0.02, rtol=0)


def test_old_checkpoints_go_and_a_fresh_start_does_not_overwrite(flags, tmp_path):
    assert train.main([*flags, "train.checkpoint_every=1", "train.keep_checkpoints=2"]) == 0
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path / "run")] == ["checkpoint-3", "checkpoint-4"]
    assert train.main(flags) == 2
    with pytest.raises(UsageError, match="resume=latest"):
        checkpoint.find_checkpoint(tmp_path / "run", None)


def test_a_checkpoint_that_is_being_deleted_does_not_count(tmp_path, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    accelerator = Accelerator(cpu=True)
    checkpoint.save_checkpoint(accelerator, tmp_path, 1, {}, keep=1)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda path, **options: options or killed(path))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(accelerator, tmp_path, 2, {}, keep=1)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-2"]


def test_latest_starts_afresh_where_there_is_nothing_and_a_missing_path_is_an_error(tmp_path):
    assert checkpoint.find_checkpoint(tmp_path, "latest") is None
    with pytest.raises(UsageError, match="not a checkpoint"):
        checkpoint.find_checkpoint(tmp_path, str(tmp_path / "checkpoint-7"))


def test_an_engine_that_was_asked_for_and_not_given_stops_the_run(flags, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(
        engine, "Accelerator", lambda **_: type("A", (), {"distributed_type": DistributedType.MULTI_CPU})()
    )
    assert train.main(flags) == 2
    assert "FSDP was asked for" in caplog.text


def test_validation_restores_scores_and_leaves_training_as_it_was(flags, tmp_path, videos, caplog):
    lq, gt = tmp_path / "lq", tmp_path / "gt"
    lq.mkdir()
    gt.mkdir()
    clip(lq / "one.mp4", size="16x16")
    clip(gt / "one.mp4", size="64x64")
    assert train.main([*flags, f"output_dir={tmp_path / 'plain'}"]) == 0
    validated = [
        *flags,
        f"validation.lq={lq}",
        f"validation.gt={gt}",
        "validation.every=2",
        "train.tracker=tensorboard",
    ]
    assert train.main(validated) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")
    report = json.loads((tmp_path / "run" / "validation" / "step-2" / "metrics.json").read_text())
    assert "psnr" in json.dumps(report)
    assert (tmp_path / "run" / "validation" / "step-4" / "one.mp4").is_file()
    assert (tmp_path / "run" / "validation" / "step-4" / "compare" / "one.png").is_file()
    folder, pipe = tmp_path / "again", load_pipeline(tmp_path / "run" / "model", "float32", "cpu")
    (lq / "one.mp4").rename(lq / "two.mp4")
    clip(lq / "one.mp4", size="16x16").write_bytes(b"no video")
    (gt / "one.mp4").rename(gt / "two.mp4")
    averages, pictures = validate(pipe, ValidationConfig(lq=lq, gt=gt), folder)
    assert averages.keys() == {"psnr", "ssim"}  # of the one that can be read
    assert pictures.keys() == {"two"}
    assert "one.mp4" in caplog.text
    events = next((tmp_path / "run").rglob("events.out.tfevents.*")).read_bytes()
    assert b"validation/psnr" in events
    assert b"validation/one" in events


def test_a_clip_whose_length_is_only_known_after_decoding_does_not_end_the_training(tmp_path, model, caplog):
    for folder, size, seconds in (("lq", "16x16", "0.2"), ("gt", "64x64", "0.24")):
        (tmp_path / folder).mkdir()
        clip(tmp_path / folder / "one.mkv", size=size, seconds=seconds)
        clip(tmp_path / folder / "two.mp4", size=size, seconds="0.2")
    config = ValidationConfig(lq=tmp_path / "lq", gt=tmp_path / "gt")
    check_validation(config, 4)
    averages, pictures = validate(load_pipeline(model, "float32", "cpu"), config, tmp_path / "out")
    assert averages.keys() == {"psnr", "ssim"}
    assert pictures.keys() == {"two"}
    assert "validation: one" in caplog.text
