"""One child process and the watch over it: a file that kills it costs itself and nothing else."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path

from finetune.curation.rows import OUT_OF_MEMORY, Row, failed
from finetune.curation.stage import Setup
from vsr.errors import VSRError

REPOSITORY = Path(__file__).parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Sums must not depend on the number of cores; more workers use them better than more threads."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of the clips of one source in one stage, and what it took."""

    rows: list[Row]
    seconds: float
    attempts: int
    host: str


class ChildDied(Exception):
    """The process ended before it answered."""

    def __init__(self, code: int) -> None:
        super().__init__(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        self.timed_out = code == -signal.SIGALRM


class Worker:
    """Runs stages in a child process, which is started when needed and started again when it has died."""

    def __init__(self, setup: Setup, environment: Mapping[str, str] | None = None) -> None:
        self._setup, self._environment = setup, dict(environment or {})
        self._process: subprocess.Popen | None = None
        self._closed = False

    def run(self, stage: str, rows: list[Row]) -> Outcome:
        """Do the work of a stage on the rows of one source.

        Raises:
            VSRError: what the stage needs is missing or does not load; no clip is to blame.
        """
        begun, limits = time.perf_counter(), self._setup.config.limits
        attempts, done = 0, None
        while done is None:
            attempts += 1
            try:
                done = self._ask(stage, rows)
                if attempts < limits.attempts and any(row.get("reason") == OUT_OF_MEMORY for row in done):
                    done = None  # another process may have had it for a moment
            except ChildDied as death:
                if self._closed:
                    raise
                if attempts < limits.attempts:
                    continue
                reason = "timeout" if death.timed_out else "crash"
                text = f"no result within {limits.seconds:g} s" if death.timed_out else f"the decoder died: {death}"
                done = [failed(row, stage, reason, f"{text}, {limits.attempts} times", "ChildDied") for row in rows]
        return Outcome(rows=done, seconds=time.perf_counter() - begun, attempts=attempts, host=socket.gethostname())

    def close(self) -> None:
        """End the child; also from another thread, which then gets ChildDied out of ``run``."""
        self._closed = True
        if process := self._process:
            process.kill()
            process.wait()

    def _ask(self, stage: str, rows: list[Row]) -> list[Row]:
        if self._process is None:
            self._start()
        if error := self._exchange((stage, rows), f"the stage {stage} does not start"):
            raise error
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            raise self._death() from None

    def _exchange(self, request: object, complaint: str) -> VSRError | None:
        try:
            self._pipe.send(request)
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            raise VSRError(f"{complaint}: its process ended with {self._death()}") from None

    def _start(self) -> None:
        self._pipe, other = Pipe()
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **self._environment, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "finetune.curation.child", str(other.fileno())]
        # In a session of its own: Ctrl-C is for the program, which closes the pipe.
        self._process = subprocess.Popen(
            command, pass_fds=[other.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        other.close()
        self._pipe.send(self._setup)

    def _death(self) -> ChildDied:
        code = self._process.wait()
        self._pipe.close()
        self._process = None
        return ChildDied(code)
