from __future__ import annotations

import sys
import threading
from functools import partial

import pytest

from plora_cl.checkpoint.writer import BackgroundWriter


def test_jobs_are_done_in_order_on_another_thread() -> None:
    writer = BackgroundWriter()
    done: list[tuple[int, bool]] = []

    def note(number: int) -> None:
        done.append((number, threading.current_thread() is threading.main_thread()))

    for number in range(100):
        writer.submit(partial(note, number))
    writer.flush()
    assert done == [(number, False) for number in range(100)]


def test_submitting_does_not_wait_and_flushing_does() -> None:
    writer = BackgroundWriter()
    held, done = threading.Event(), threading.Event()

    def job() -> None:
        held.wait()
        done.set()

    writer.submit(job)
    assert not done.is_set()
    held.set()
    writer.flush()
    assert done.is_set()


def test_what_a_job_raises_surfaces_and_later_jobs_are_dropped() -> None:
    writer = BackgroundWriter()
    go = threading.Event()
    done: list[str] = []

    def fail() -> None:
        go.wait()
        raise KeyError("lost")

    writer.submit(fail)
    writer.submit(partial(done.append, "done"), dropped=partial(done.append, "dropped"))
    go.set()
    with pytest.raises(KeyError, match="lost"):
        writer.flush()
    assert done == ["dropped"]
    writer.submit(partial(done.append, "next"), dropped=partial(done.append, "dropped too"))
    writer.flush()
    assert done == ["dropped", "next"]


def test_a_failure_nobody_waited_for_surfaces_at_the_next_submit() -> None:
    writer = BackgroundWriter()
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise KeyError("lost")

    writer.submit(fail)
    failed.wait()
    for thread in threading.enumerate():
        if thread.name == "checkpoint-writer":
            thread.join()
    done: list[str] = []
    with pytest.raises(KeyError, match="lost"):
        writer.submit(partial(done.append, "done"), dropped=partial(done.append, "dropped"))
    assert done == ["dropped"]


def test_where_no_thread_can_be_started_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = BackgroundWriter()
    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for number in range(3):
            writer.submit(partial(done.append, number))
        writer.flush()
    writer.submit(partial(done.append, 3))
    writer.flush()
    assert done == [0, 1, 2, 3]


def test_other_threads_get_the_interpreter_soon_while_any_job_runs_and_only_then() -> None:
    before = sys.getswitchinterval()
    during: list[float] = []
    both = threading.Barrier(2, action=lambda: during.append(sys.getswitchinterval()))
    first, second = BackgroundWriter(), BackgroundWriter()
    ended = threading.Event()

    def early() -> None:
        both.wait(60)

    def late() -> None:
        both.wait(60)
        ended.wait(60)
        during.append(sys.getswitchinterval())

    first.submit(early)
    second.submit(late)
    first.flush()
    ended.set()
    second.flush()
    assert max(during) < before == sys.getswitchinterval()
    assert len(during) == 2
