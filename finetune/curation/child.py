"""The process that opens files: reads requests from a pipe, answers with rows. It may be killed at any time.

    python -m finetune.curation.child FD

It sets itself an alarm before each request and lets the signal end the process: a decoder that hangs in native code
stops Python's threads and handlers, but not that.
"""

import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

import cv2

from finetune.curation.rows import Row, failed_with
from finetune.curation.stage import Bench
from finetune.curation.stages import STAGES
from vsr.errors import VSRError


def serve(pipe: Connection) -> None:
    """Answer until the other end is closed, which raises EOFError.

    The first message is the setup. A request is (stage, rows); the answers to it are an error that concerns all clips,
    or None and then the rows.
    """
    cv2.setNumThreads(1)
    bench = Bench(pipe.recv())
    while True:
        name, rows = pipe.recv()
        try:
            work = STAGES[name].load(bench)
        except VSRError as error:
            pipe.send(error)
            continue
        pipe.send(None)
        signal.setitimer(signal.ITIMER_REAL, bench.config.limits.seconds)
        try:
            done = work(rows, bench)
        except Exception as error:  # whatever a file does to a stage, it is that file's error
            done = [_failed(row, name, error, bench) for row in rows]
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(done)


def _failed(row: Row, stage: str, error: Exception, bench: Bench) -> Row:
    return failed_with(row, stage, error, path=bench.root / row["path"])


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with suppress(EOFError, ConnectionError):  # the other end is closed, or was killed
        serve(Connection(int(sys.argv[1])))
