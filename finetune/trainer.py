"""The training loop. It knows networks by role and phases by name, and no method."""

import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from finetune import checkpoint
from finetune.methods.base import Batch, Method, Phase
from finetune.recipe import TrainConfig
from finetune.trainable import trainable
from vsr.errors import UsageError, VSRError

log = logging.getLogger(__name__)

NOTHING_LEARNED = (
    "step {step}: none of the last {count} gradients was finite, so nothing is learned any more; go on from an earlier "
    "checkpoint with a smaller train.lr or with train.precision=fp32, and look at the data"
)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""A scheduler sends one of these when the time is up."""
MOST_SKIPPED = 100
"""Updates on end without a finite gradient before the training is given up."""


class Trainer:
    """Runs a method for a number of steps.

    A step runs all phases of the method once. In a phase only the networks it updates require gradients; each of its
    ``repeat`` runs takes ``accumulation`` micro-batches and ends with one optimiser step per updated network.

    Args:
        method: its networks are prepared (wrapped) in place.
        config: of the optimisation.
        accelerator: made with ``gradient_accumulation_steps=config.accumulation``.
        run: folder of the run.
    """

    def __init__(self, method: Method, config: TrainConfig, accelerator: Accelerator, run: Path) -> None:
        self._method, self._config, self._accelerator, self._run = method, config, accelerator, run
        self.step, self.samples, self.skipped = 0, 0, 0
        self._skipped_on_end, self._stop = 0, False
        if config.precision == "fp16" and any(len(phase.updates) > 1 for phase in method.phases):
            raise UsageError("train: precision: fp16 scales the loss of one network at a time; write bf16 or fp32")
        self._learning, self._optimizers, self._schedules = {}, {}, {}
        for role in method.networks:
            self._prepare(role)
        self._prepared = dict(method.networks)
        ema = config.ema_decay  # made now: preparing has moved the weights to the device
        self._ema = EMAModel(self._learning["student"], decay=ema) if ema else None

    def _prepare(self, role: str) -> None:
        config, accelerator = self._config, self._accelerator
        updates = max(1, sum(phase.repeat for phase in self._method.phases if role in phase.updates))  # per step
        optimizer = torch.optim.AdamW(
            list(trainable(self._method.networks[role])),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        network, self._optimizers[role] = accelerator.prepare(self._method.networks[role], optimizer)
        self._method.networks[role] = network
        self._learning[role] = list(trainable(network))  # only now: sharding puts other tensors in their place
        schedule = get_scheduler(
            config.schedule if config.schedule != "constant" else "constant_with_warmup",
            optimizer,
            num_warmup_steps=config.warmup_steps * updates,
            num_training_steps=max(config.steps, 1) * updates,
        )
        accelerator.register_for_checkpointing(schedule)
        self._schedules[role] = schedule

    @property
    def batches_per_step(self) -> int:
        """Micro-batches that a step takes from the loader."""
        return self._config.accumulation * sum(p.repeat for p in self._method.phases if p.fresh_batch)

    @property
    def samples_per_step(self) -> int:
        """What a step of all processes takes."""
        return self._config.batch_size * self._accelerator.num_processes * self.batches_per_step

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint: what follows equals an unbroken run, with as many processes or more or fewer."""
        state = checkpoint.load_checkpoint(self._accelerator, path)
        self.step, self.skipped = state["step"], state["skipped"]
        self.samples = state.get("samples", self.step * self.samples_per_step)  # older checkpoints do not say
        self._method.load_state_dict(state["method"])
        if self._ema:
            self._ema.load_state_dict(state["ema"])
            self._ema.to(self._accelerator.device)
        log.info("resumed from %s: step %d of %d", path, self.step, self._config.steps)

    def fit(
        self,
        loader: DataLoader,
        validate: Callable[[int], None] = lambda step: None,
        is_validated: Callable[[int], bool] = lambda step: False,
    ) -> bool:
        """Train to the end.

        Args:
            loader: the micro-batches of the steps that are left.
            validate: called with the number of steps done where ``is_validated``, after a checkpoint: it may take
                longer than a scheduler waits.

        Returns:
            False when a signal stopped it early; a checkpoint was then written.

        Raises:
            VSRError: nothing is learned any more, since no gradient is finite.
        """
        config, accelerator = self._config, self._accelerator
        most_skipped = min(MOST_SKIPPED, config.steps - self.step)
        bar = tqdm(
            total=config.steps,
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            disable=not accelerator.is_main_process,
        )
        with self._stopping_on_signals(), bar:
            batches = iter(loader)
            while self.step < config.steps:
                logs = self._train_step(batches)
                self.step += 1
                self.samples += self.samples_per_step
                self._method.end_step(self.step)
                if self._ema:
                    self._ema.step(self._learning["student"])
                self._log(logs, bar)
                if self._skipped_on_end >= most_skipped:
                    raise VSRError(NOTHING_LEARNED.format(step=self.step, count=self._skipped_on_end))
                is_last, to_validate = self.step == config.steps, is_validated(self.step)
                is_due = is_last or to_validate or self.step % config.checkpoint_every == 0
                if is_due:
                    self.save()
                if to_validate and not self._is_stopped():  # otherwise there may be no time for it
                    validate(self.step)
                if self._is_stopped():
                    if not is_due:
                        self.save()
                    log.warning("stopped by a signal after step %d; go on with resume=latest", self.step)
                    return False
        return True

    def _train_step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        logs: dict[str, Tensor] = {}
        held: list[Batch] = []
        for phase in self._method.phases:
            with self._only_updating(phase):
                for _ in range(phase.repeat):
                    if phase.fresh_batch or not held:
                        held = [self._on_device(next(batches)) for _ in range(self._config.accumulation)]
                    logs |= self._update(phase, held)
        return logs

    def _update(self, phase: Phase, micro_batches: list[Batch]) -> dict[str, Tensor]:
        """One optimiser step on the mean gradient of the micro-batches; terms to log, averaged over them."""
        accelerator, roles = self._accelerator, phase.updates
        sums: dict[str, Tensor] = {}
        for batch in micro_batches:
            with accelerator.accumulate(*(self._method.networks[role] for role in roles)):
                loss, terms = phase.loss(batch)
                accelerator.backward(loss)
                for name, term in {"loss": loss.detach(), **terms}.items():
                    sums[name] = sums.get(name, 0) + term.float() / len(micro_batches)
        norms = {f"grad_norm/{role}": self._step_optimizer(role) for role in roles}
        return {f"{phase.name}/{name}": value for name, value in (sums | norms).items() if value is not None}

    def _step_optimizer(self, role: str) -> Tensor | None:
        """Clip and step; a gradient that is not finite is counted and left out. Returns its norm before clipping."""
        optimizer = self._optimizers[role]
        norm = self._accelerator.clip_grad_norm_(self._learning[role], self._config.max_grad_norm)
        if isinstance(norm, DTensor):  # sharded like the gradients
            norm = norm.full_tensor()
        elif isinstance(norm, float):  # DeepSpeed's
            norm = torch.tensor(norm, device=self._accelerator.device)
        if norm is not None and not math.isfinite(norm.item()) and self._accelerator.scaler is None:
            is_skipped = True
            log.warning("step %d: the gradient of %s is not finite; skipped", self.step + 1, role)
        else:
            optimizer.step()
            is_skipped = bool(getattr(optimizer, "step_was_skipped", False))
        self.skipped += is_skipped
        self._skipped_on_end = self._skipped_on_end + 1 if is_skipped else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a first update that was skipped: it is counted instead
            self._schedules[role].step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def _only_updating(self, phase: Phase) -> Iterator[None]:
        """Inside, all other networks are frozen, in eval mode, and without their DDP wrapper.

        The wrapper would wait for gradients that never come.
        """
        for role, network in self._prepared.items():
            learns = role in phase.updates
            network.train(learns)
            self._set_learning(role, learns=learns)
            is_wrapped = isinstance(network, DistributedDataParallel)
            self._method.networks[role] = network.module if is_wrapped and not learns else network
        try:
            yield
        finally:
            for role, network in self._prepared.items():
                self._set_learning(role, learns=True)  # an average, for one, leaves frozen weights out
                self._method.networks[role] = network

    def _set_learning(self, role: str, *, learns: bool) -> None:
        for parameter in self._learning[role]:
            parameter.requires_grad_(learns)

    def _on_device(self, batch: Batch) -> Batch:
        device = self._accelerator.device
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _log(self, logs: dict[str, Tensor], bar: tqdm) -> None:
        """Every ``log_every``-th step, and the last one, goes to log.jsonl; values are means over processes."""
        bar.update()
        if self.step % self._config.log_every and self.step != self._config.steps:
            return
        means = {name: self._accelerator.reduce(value.clone(), "mean").item() for name, value in logs.items()}
        entry = means | {"lr": self._schedules["student"].get_last_lr()[0], "skipped": self.skipped}
        if self._accelerator.is_main_process:
            checkpoint.append_log(self._run, {"step": self.step, **entry})
            bar.set_postfix({"loss": f"{next(v for k, v in means.items() if k.endswith('/loss')):.4g}"})
        self._accelerator.log(entry, step=self.step)

    def save(self) -> Path:
        """Write a checkpoint of this step."""
        counts = {"step": self.step, "samples": self.samples, "skipped": self.skipped}
        state: dict[str, Any] = {**counts, "method": self._method.state_dict()}
        if self._ema:
            state["ema"] = self._ema.state_dict()
        return checkpoint.save_checkpoint(self._accelerator, self._run, self.step, state, self._config.keep_checkpoints)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Inside, the student has its averaged weights, where the recipe asks for an average."""
        if self._ema is None:
            yield
            return
        learning = self._learning["student"]
        self._ema.store(learning)
        self._ema.copy_to(learning)
        try:
            yield
        finally:
            self._ema.restore(learning)

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        def stop(signum: int, frame: object) -> None:
            self._stop = True

        previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _is_stopped(self) -> bool:
        """Some process got a signal; all must agree, or they would wait for each other."""
        if self._accelerator.num_processes == 1:
            return self._stop
        flag = torch.tensor(float(self._stop), device=self._accelerator.device)
        return self._accelerator.reduce(flag, "sum").item() > 0
