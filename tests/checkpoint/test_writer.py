from __future__ import annotations

import sys
import threading
from functools import partial
from types import FrameType
from typing import Any

import pytest

from plora_cl.checkpoint.snapshot import writer as writer_module
from plora_cl.checkpoint.snapshot.writer import BackgroundWriter


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


class InterruptsAt:
    """Raises an exception at the n-th line of the writer on this thread, after `submit` began."""

    def __init__(self, line: int, error: type[BaseException]) -> None:
        self.left, self._error = line, error
        self._seen: set[int] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> InterruptsAt | None:
        if frame.f_code.co_filename != writer_module.__file__:
            return None
        # The line of a `with` comes again before its exit, where no signal is looked for.
        if event == "line" and frame.f_lineno not in self._seen:
            self._seen.add(frame.f_lineno)
            self.left -= 1
            if self.left == 0:
                raise self._error
        return self


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_at_any_line_of_handing_a_job_over_leaves_nobody_waiting(
    error: type[BaseException],
) -> None:
    interrupted = 0
    for line in range(1, 1000):
        writer = BackgroundWriter()
        done: list[str] = []
        interrupt = InterruptsAt(line, error)
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            writer.submit(partial(done.append, "first"), dropped=partial(done.append, "dropped"))
        except error:
            interrupted += 1
        finally:
            sys.settrace(before)
        waiting = threading.Thread(target=writer.flush, daemon=True)
        waiting.start()
        waiting.join(60)
        assert not waiting.is_alive(), f"line {line}: flush waits for a thread that never began"
        assert done in ([], ["first"], ["dropped"])
        writer.submit(partial(done.append, "next"))
        writer.flush()
        assert done[-1] == "next"
        if interrupt.left > 0:
            break
    assert interrupted > 10


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_thread_whose_start_is_interrupted_does_its_jobs_or_none(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    writer, start, done = BackgroundWriter(), threading.Thread.start, list[str]()

    def interrupted(thread: threading.Thread) -> None:
        if has_begun:
            start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.submit(partial(done.append, "done"), dropped=partial(done.append, "dropped"))
    waiting = threading.Thread(target=writer.flush, daemon=True)
    waiting.start()
    waiting.join(60)
    assert not waiting.is_alive(), "flush waits for a thread that never began"
    assert done in (["done"], ["dropped"])
    assert has_begun or done == ["dropped"]


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
