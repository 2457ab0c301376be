"""Methods with several networks: who is frozen, wrapped, averaged and scheduled when."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from finetune.methods.base import Method, Phase
from finetune.recipe import TrainConfig
from finetune.trainer import Trainer
from vsr.errors import UsageError

ROOT = Path(__file__).parent.parent


class StudentFirst(Method):
    """A student, and a critic that is updated after it, twice."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.networks = {"student": torch.nn.Linear(4, 4), "critic": torch.nn.Linear(4, 4)}
        self.phases = (
            Phase("student", ("student",), self.loss),
            Phase("critic", ("critic",), self.loss, repeat=2, fresh_batch=False),
        )

    def loss(self, batch):
        return self.networks["critic"](self.networks["student"](batch["x"])).square().mean(), {}


def settings(**changes):
    return TrainConfig(**{"steps": 3, "lr": 0.1, "batch_size": 1, "warmup_steps": 0, "precision": "fp32", **changes})


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(3, 4, generator=generator)} for _ in range(count)]


def train_it(folder, **changes):
    """Three steps; the method and its trainer."""
    method = StudentFirst()
    trainer = Trainer(method, settings(**changes), Accelerator(cpu=True), folder)
    trainer.fit(batches(3))
    return method, trainer


def test_a_student_that_is_not_updated_last_is_averaged_all_the_same(tmp_path):
    method, trainer = train_it(tmp_path, ema_decay=0.9)
    last = method.networks["student"].weight.detach().clone()
    with trainer.averaged_weights():
        assert not torch.equal(method.networks["student"].weight, last)
    assert torch.equal(method.networks["student"].weight, last)


def test_a_schedule_counts_the_updates_of_a_phase_that_repeats(tmp_path):
    _, trainer = train_it(tmp_path, schedule="linear", steps=3)
    rates = {role: schedule.get_last_lr()[0] for role, schedule in trainer._schedules.items()}
    assert rates == {"student": 0, "critic": 0}
    method = StudentFirst()
    trainer = Trainer(method, settings(schedule="linear", steps=4), Accelerator(cpu=True), tmp_path)
    trainer._train_step(iter(batches(1)))  # a quarter of the way for both
    rates = {role: schedule.get_last_lr()[0] for role, schedule in trainer._schedules.items()}
    assert rates == pytest.approx({"student": 0.075, "critic": 0.075})


def test_fp16_is_refused_where_a_phase_updates_two_networks(tmp_path):
    method = StudentFirst()
    method.phases = (Phase("both", ("student", "critic"), method.loss),)
    with pytest.raises(UsageError, match="bf16 or fp32"):
        Trainer(method, settings(precision="fp16"), Accelerator(cpu=True), tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from tests.test_phases import train_it
folder = Path(sys.argv[1])
method, trainer = train_it(folder)
state = {f"{role}.{k}": v for role, n in method.networks.items() for k, v in n.module.state_dict().items()}
if trainer._accelerator.is_main_process:
    save_file(state, folder / "weights.safetensors")
trainer._accelerator.end_training()  # a process that ends inside its group is now and then aborted by gloo's threads
"""


def test_two_processes_train_two_networks_as_one_does(tmp_path):
    """A frozen network in its DDP wrapper would wait for gradients that never come."""
    from safetensors.torch import load_file

    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29612"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    method, _ = train_it(tmp_path)
    for name, weight in load_file(tmp_path / "weights.safetensors").items():
        role, _, parameter = name.partition(".")
        torch.testing.assert_close(method.networks[role].state_dict()[parameter], weight)
