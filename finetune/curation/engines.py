"""Where the work is done: in one child process, in several, or by the workers of a Ray cluster.

An engine takes the clips of one source at a time and gives back what came of them, in any order. It changes nothing in
the result.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from finetune.curation.rows import Row
from finetune.curation.stage import Setup
from finetune.curation.stages import STAGES
from finetune.curation.worker import REPOSITORY, Outcome, Worker
from vsr.errors import UsageError

Key = TypeVar("Key")
Tasks = Iterable[tuple[Key, list[Row]]]
Results = Iterator[tuple[Key, Outcome]]
PER_GPU = 8
"""Workers that share a GPU unless told otherwise; each holds the networks of a stage."""
WAITING_PER_WORKER = 2
"""Tasks handed out beyond those in work, so that no worker waits for the next one."""


class Engine(Protocol):
    """Runs a stage on many sources."""

    def map(self, stage: str, tasks: Tasks) -> Results:
        """Do the work of ``stage`` on each task; tasks are taken as they are needed."""

    def close(self) -> None:
        """End all processes."""


class SerialEngine:
    """One child process."""

    def __init__(self, setup: Setup) -> None:
        self._worker = Worker(setup)

    def map(self, stage: str, tasks: Tasks) -> Results:
        for key, rows in tasks:
            yield key, self._worker.run(stage, rows)

    def close(self) -> None:
        self._worker.close()


class ProcessEngine:
    """Several child processes on this machine, each watched by a thread; with GPUs, they are dealt out in turn."""

    def __init__(self, setup: Setup, workers: int, gpus: list[str]) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._workers = [Worker(setup, _gpu_of(i, gpus)) for i in range(workers)]
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def map(self, stage: str, tasks: Tasks) -> Results:
        def submit(rows: list[Row]) -> Future:
            return self._pool.submit(self._run, stage, rows)

        def one_done(running: list[Future]) -> Future:
            return next(iter(wait(running, return_when=FIRST_COMPLETED).done))

        window = WAITING_PER_WORKER * len(self._workers)
        yield from _bounded(tasks, submit, one_done, Future.result, window)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()  # the threads that wait for a child see it die
        self._pool.shutdown(cancel_futures=True)

    def _run(self, stage: str, rows: list[Row]) -> Outcome:
        worker = self._free.get()
        try:
            return worker.run(stage, rows)
        finally:
            self._free.put(worker)


class RayEngine:
    """Actors of a Ray cluster: the one that RAY_ADDRESS names, else one on this machine.

    The repository and the root must lie at the same place on all nodes. An actor that is lost with its node is started
    anew and its clips are done again.
    """

    def __init__(self, setup: Setup, workers: int | None, gpu_share: float) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install ray, or use --engine process") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray, self._setup, self._wanted, self._share = ray, setup, workers, gpu_share
        self._actors: list[Any] = []
        self._on_gpu = False
        environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
        options = {"runtime_env": {"env_vars": environment}, "logging_level": "warning"}
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**options)
        else:
            ray.init("local", num_cpus=workers, include_dashboard=False, **options)

    def map(self, stage: str, tasks: Tasks) -> Results:
        self._staff(on_gpu=bool(STAGES[stage].networks) and self._ray.cluster_resources().get("GPU", 0) > 0)
        load = dict.fromkeys(range(len(self._actors)), 0)
        at: dict[Any, int] = {}

        def submit(rows: list[Row]) -> Any:
            number = min(load, key=load.get)
            load[number] += 1
            reference = self._actors[number].run.remote(stage, rows)
            at[reference] = number
            return reference

        def one_done(running: list[Any]) -> Any:
            (reference,), _ = self._ray.wait(running, num_returns=1)
            load[at.pop(reference)] -= 1
            return reference

        yield from _bounded(tasks, submit, one_done, self._ray.get, WAITING_PER_WORKER * len(self._actors))

    def close(self) -> None:
        self._ray.shutdown()

    def _staff(self, *, on_gpu: bool) -> None:
        """Actors for as many clips at once as there are cores, or shares of GPUs."""
        if self._actors and on_gpu == self._on_gpu:
            return
        for actor in self._actors:
            self._ray.kill(actor)
        there = self._ray.cluster_resources()
        most = int(there.get("GPU", 0) / self._share) if on_gpu else int(there["CPU"])
        kind = self._ray.remote(Worker).options(
            num_cpus=1, num_gpus=self._share if on_gpu else 0, max_restarts=-1, max_task_retries=-1
        )
        self._actors = [kind.remote(self._setup) for _ in range(max(1, min(most, self._wanted or most)))]
        self._on_gpu = on_gpu


def make_engine(name: str, setup: Setup, workers: int | None, gpu_share: float) -> Engine:
    """The engine of ``--engine``.

    Args:
        workers: clips at once; None: as many as there are cores, with GPUs at most PER_GPU on each.
        gpu_share: part of a GPU that one worker of Ray asks for.
    """
    if name == "ray":
        return RayEngine(setup, workers, gpu_share)
    if name == "process":
        gpus = _gpus(setup)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return ProcessEngine(setup, workers or (min(cores, PER_GPU * len(gpus)) if gpus else cores), gpus)
    return SerialEngine(setup)


def _bounded(
    tasks: Tasks,
    submit: Callable[[list[Row]], Any],
    one_done: Callable[[list[Any]], Any],
    result: Callable[[Any], Outcome],
    window: int,
) -> Results:
    """Keep up to ``window`` tasks under way, so that memory does not grow with their number."""
    running: dict[Any, Key] = {}
    for key, rows in tasks:
        running[submit(rows)] = key
        if len(running) >= window:
            done = one_done(list(running))
            yield running.pop(done), result(done)
    while running:
        done = one_done(list(running))
        yield running.pop(done), result(done)


def _gpus(setup: Setup) -> list[str]:
    """The GPUs that this job was given, as CUDA_VISIBLE_DEVICES names them."""
    if setup.device == "cpu":
        return []
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return given.split(",")[: torch.cuda.device_count()]


def _gpu_of(worker: int, gpus: list[str]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]} if gpus else {}
