"""Reading, restoring and writing at the same time: stages in threads, with bounded queues between them.

An error in one stage is raised in the thread that drives them all, unchanged, at the next item.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()


def prefetch(source: Iterable[T], depth: int) -> Iterator[T]:
    """The items of ``source``, produced in a thread of its own, at most ``depth`` ahead of their use."""
    iterator = iter(source)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
            pending = deque(pool.submit(next, iterator, _END) for _ in range(depth))
            try:
                while (item := pending.popleft().result()) is not _END:
                    pending.append(pool.submit(next, iterator, _END))
                    yield item
            finally:
                for future in pending:
                    future.cancel()
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


class WriteBehind:
    """Calls ``write`` in a thread of its own, in order, at most ``depth`` calls behind.

    Used as a context manager: leaving normally waits for all calls; leaving by an exception drops those not yet begun.
    """

    def __init__(self, write: Callable[..., None], depth: int) -> None:
        self._write, self._depth = write, depth
        self._pending: deque[Future] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __call__(self, *args: Any) -> None:
        while len(self._pending) >= self._depth or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, *args))

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()
