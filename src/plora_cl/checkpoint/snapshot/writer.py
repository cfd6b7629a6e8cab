"""When the work of a save is done: at once, or on a thread while training continues."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from plora_cl.errors import CheckpointError

Job: TypeAlias = Callable[[], object]

_SWITCH_SECONDS = 0.0003
_LINGER_SECONDS = 1.0  # to start a thread would cost a save a tenth of a millisecond


def _nothing() -> None:
    """Do nothing."""


class Writer(Protocol):
    """Does jobs in the order of their submission."""

    def submit(self, job: Job, /, *, dropped: Job = _nothing) -> None:
        """Do ``job`` or, if it is dropped, ``dropped``; raise what an earlier job raised."""
        ...

    def flush(self) -> None:
        """Return when every job is done; raise what a job raised."""
        ...


class InPlaceWriter:
    """Does each job before `submit` returns."""

    def submit(self, job: Job, /, *, dropped: Job = _nothing) -> None:
        """Do ``job``; raises what it raises."""
        job()

    def flush(self) -> None:
        """Return at once: every job is done."""


class BackgroundWriter:
    """Does jobs on a thread of its own, one after the other.

    What a job raises ends the work: later jobs are dropped, and the next `submit` or `flush` raises
    it. The thread ends with `flush`, or when there has been nothing to do for a second. A child
    made by ``os.fork`` does not have the thread, and no jobs.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        # Its own methods are no Python code, in which an interrupt could leave it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._jobs: deque[tuple[Job, Job]] = deque()
        self._worker: threading.Thread | None = None
        self._has_begun = self._is_working = self._is_to_end = False
        self._failure: BaseException | None = None

    def submit(self, job: Job, /, *, dropped: Job = _nothing) -> None:
        """Do ``job`` after those before it; return at once, unless no thread can be started.

        Args:
            job: What to do.
            dropped: Done in its place where it is dropped, for instance to release what it holds.

        Raises:
            BaseException: What an earlier job raised; ``job`` is dropped then.
            CheckpointError: This is a forked child.
        """
        if os.getpid() != self._process:  # its copy of the lock may never be released
            dropped()
            raise CheckpointError(
                "a forked child cannot save: its parent does; leave saving to the parent"
            )
        is_ours = True
        try:
            with self._lock:
                is_ours = False
                if self._failure is not None:
                    dropped()
                self._raise_failure()
                self._jobs.append((job, dropped))
                self._is_working, self._is_to_end = True, False
                if self._worker is not None:
                    self._changed.notify_all()
                    return
                self._has_begun = False
                self._worker = threading.Thread(target=self._work, name="checkpoint-writer")
            self._start(self._worker)
        except BaseException:
            if is_ours:
                dropped()
            self._give_up()
            raise

    def flush(self) -> None:
        """Return when every job is done.

        Raises:
            BaseException: What a job raised.
        """
        if os.getpid() != self._process:
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._is_working)
            self._is_to_end = True
            self._changed.notify_all()
            self._raise_failure()

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # the system has no thread to give: training waits instead
            self._worker, self._is_to_end = threading.current_thread(), True
            try:
                self._work()
            finally:
                self._worker, self._is_working = None, False

    def _give_up(self) -> None:
        """Drop all jobs if their thread did not begin."""
        with self._changed:
            if self._worker is not None and self._has_begun:
                return
            self._worker, self._is_working = None, False
            self._drop_all()
            self._changed.notify_all()

    def _drop_all(self) -> None:
        while self._jobs:
            self._jobs.popleft()[1]()

    def _work(self) -> None:
        with self._changed:
            if self._worker is not threading.current_thread():
                return  # given up before it began
            self._has_begun = True
        while (job := self._next_job()) is not None:
            try:
                with _polite:
                    job()
            except BaseException as error:  # noqa: BLE001 - raised again in the other thread
                with self._changed:
                    self._failure = error
                    self._drop_all()

    def _next_job(self) -> Job | None:
        with self._changed:
            if not self._jobs:
                self._is_working = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._is_to_end, _LINGER_SECONDS)
            if not self._jobs:
                self._worker = None
                return None
            return self._jobs.popleft()[0]

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


class _Polite:
    """Shortens the switch interval of the interpreter while a writer works.

    Training needs it for an instant between two operations; with Python's 5 ms it would wait that
    long each time, which doubles what a save costs it.
    """

    def __init__(self) -> None:
        self._entering = threading.Lock()
        self._writers, self._interval = 0, 0.0

    def __enter__(self) -> None:
        with self._entering:
            if not self._writers:
                self._interval = sys.getswitchinterval()
                sys.setswitchinterval(min(self._interval, _SWITCH_SECONDS))
            self._writers += 1

    def __exit__(self, *_: object) -> None:
        with self._entering:
            self._writers -= 1
            if not self._writers:
                sys.setswitchinterval(self._interval)


_polite = _Polite()
