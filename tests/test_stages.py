"""Stages in threads: order, bounds, and errors that arrive where they are needed."""

import threading

import pytest

from vsr.stages import WriteBehind, prefetch


def test_prefetch_keeps_the_order_and_works_in_another_thread():
    threads = set()
    source = (threads.add(threading.get_ident()) or i for i in range(100))
    assert list(prefetch(source, 3)) == list(range(100))
    assert threading.get_ident() not in threads


def test_prefetch_runs_at_most_its_depth_ahead():
    made = []
    items = prefetch((made.append(i) or i for i in range(100)), 3)
    for used, _ in zip(range(1, 50), items, strict=False):
        assert len(made) <= used + 3
    items.close()


def test_an_error_in_the_source_reaches_the_consumer_after_the_good_items():
    def source():
        yield 1
        raise ValueError("broken file")

    items = prefetch(source(), 4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken file"):
        next(items)


def test_closing_a_prefetch_closes_its_source():
    closed = []

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    items = prefetch(source(), 2)
    next(items)
    items.close()
    assert closed == [True]


def test_write_behind_writes_everything_in_order():
    written = []
    with WriteBehind(written.append, 2) as write:
        for i in range(50):
            write(i)
    assert written == list(range(50))


def test_an_error_while_writing_stops_the_producer():
    def fail(item):
        if item == 3:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(fail, 2) as write:
        for i in range(1000):
            write(i)


def test_an_error_in_the_last_write_is_not_lost():
    def fail(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(fail, 2) as write:
        write(0)


def test_leaving_by_an_error_drops_what_was_not_begun():
    started, release, written = threading.Event(), threading.Event(), []

    def slow(item):
        started.set()
        release.wait(5)
        written.append(item)

    with pytest.raises(KeyboardInterrupt), WriteBehind(slow, 5) as write:
        write(0)
        write(1)
        started.wait(5)
        release.set()
        raise KeyboardInterrupt
    assert 0 in written
