"""Starts the runs of a study, a few at a time, until each is done or has failed.

The supervisor keeps no state on disk: the folders of the runs say what is done. After a kill,
another supervisor continues where this one ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from plora_cl.errors import PloraError, RunStoppedError
from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import State, Status, status_of

_POLL_SECONDS, _LOOK_SECONDS = 0.1, 5.0


class RunProcess(Protocol):
    """A run in a process of its own."""

    @property
    def run(self) -> PlannedRun:
        """The run."""
        ...

    def stop(self) -> None:
        """Ask it to save and end."""
        ...

    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        ...

    def record_failure(self, code: int, /) -> str:
        """Record the failure; return it as one line."""
        ...


class Supervisor:
    """Runs every run that is not done yet.

    Args:
        jobs: Runs at a time, at least 1. Runs under way in other processes count.
        start: Starts or resumes a run. If it raises a `PloraError`, that run has failed, and the
            others continue.
        tell: Receives one line for each run that is started, resumed or ended.
    """

    def __init__(
        self,
        *,
        jobs: int,
        start: Callable[[PlannedRun], RunProcess],
        tell: Callable[[str], None],
    ) -> None:
        self._jobs, self._start_run, self._tell = jobs, start, tell
        self._waiting: list[PlannedRun] = []
        self._elsewhere: list[PlannedRun] = []
        self._children: list[RunProcess] = []
        self._stopped: tuple[str, int] | None = None
        self._looked = 0.0

    def request(self, reason: str, exit_code: int) -> None:
        """Stop: start no further run, and let those under way save and end."""
        self._stopped = self._stopped or (reason, exit_code)

    def work(self, runs: Sequence[PlannedRun]) -> None:
        """Run everything that is not done, and return when nothing is left to do.

        Runs that failed earlier are tried once more. Runs with other settings, and runs whose
        folder cannot be read, are skipped.

        Args:
            runs: Runs in the order in which to start them.

        Raises:
            RunStoppedError: A stop was requested; the same call later resumes exactly.
        """
        for run in runs:
            self._sort_in(run, status_of(run), told=False)
        passed_on = False
        while self._children or ((self._waiting or self._elsewhere) and not self._stopped):
            if self._stopped and not passed_on:
                passed_on = True
                for child in self._children:
                    child.stop()
            self._reap()
            self._look_elsewhere()
            self._start()
            time.sleep(_POLL_SECONDS)
        if self._stopped:
            raise RunStoppedError(*self._stopped)

    def _sort_in(self, run: PlannedRun, status: Status, *, told: bool) -> None:
        if status.state is State.RUNNING:
            self._tell(f"running elsewhere: {run.name}: {status.detail}")
            self._elsewhere.append(run)
        elif status.state is State.CHANGED:
            self._tell(f"changed: {run.name} {status.detail}")
        elif status.state is State.UNREADABLE:
            self._tell(f"unreadable: {run.name}: {status.detail}")
        elif status.state is State.DONE:
            if told:
                self._tell(f"done: {run.name}")
        else:
            self._waiting.append(run)

    def _start(self) -> None:
        while (
            self._waiting
            and not self._stopped
            and len(self._children) + len(self._elsewhere) < self._jobs
        ):
            run = self._waiting.pop(0)
            status = status_of(run)
            if status.state is State.UNREADABLE:
                self._sort_in(run, status, told=True)
                continue
            try:
                self._children.append(self._start_run(run))
            except PloraError as error:
                self._tell(f"failed: {run.name}: not started: {error}")
                continue
            was_stopped = status.state is State.STOPPED
            self._tell(f"{'resumed' if was_stopped else 'started'}: {run.name}")

    def _reap(self) -> None:
        for child in list(self._children):
            code = child.exit_code()
            if code is None:
                continue
            self._children.remove(child)
            run, status = child.run, status_of(child.run)
            unreadable = status.state is State.UNREADABLE and code == 0
            if unreadable or status.state in (State.DONE, State.RUNNING):
                self._sort_in(run, status, told=True)
            elif self._stopped and code != 0:
                self._tell(f"stopped: {run.name}")
            else:
                self._tell(f"failed: {run.name}: {child.record_failure(code)}")

    def _look_elsewhere(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for run in list(self._elsewhere):
            status = status_of(run)
            if status.state is not State.RUNNING:
                self._elsewhere.remove(run)
                self._sort_in(run, status, told=True)
