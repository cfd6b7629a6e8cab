"""Progress of a run for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

from rich.console import Console

from plora_cl.cli.pace import Clock, Pace, clock_time, saved_line, score_line
from plora_cl.cli.tables import Table, show
from plora_cl.config.schema import Settings, experiment_folder
from plora_cl.training.reporting import Reporter, StepReport, TaskScore
from plora_cl.units import Unit
from plora_cl.wording import counted


def announce(settings: Settings) -> None:
    """Print what is about to be loaded, and for which experiment; libraries take a while."""
    tasks = counted(len(settings.tasks), "task")
    folder = experiment_folder(settings)
    print(f"Loading {settings.model_name} and {tasks} for {folder} ...", flush=True)


def reporter_for(*, quiet: bool = False) -> AbstractContextManager[Reporter]:
    """Return the reporter that suits stdout."""
    if quiet:
        return nullcontext(QuietReporter(sys.stdout))
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        from plora_cl.cli.progress_bar import BarReporter, Terminal

        return BarReporter(Terminal())
    return nullcontext(PlainReporter(sys.stdout))


class PlainReporter(Reporter):
    """Writes a line now and then, for logs.

    Args:
        out: Where to; flushed after each line.
        clock: Seconds from any fixed origin.
        interval: Seconds between two lines of progress; the end of an epoch always gets one.
    """

    def __init__(
        self, out: TextIO, *, clock: Clock = time.monotonic, interval: float = 10.0
    ) -> None:
        self._out, self._clock, self._interval = out, clock, interval
        self._pace = Pace(clock)
        self._last_line = clock()
        self._name, self._position = "", ""

    def message(self, text: str, /) -> None:
        """Write ``text`` as it is."""
        print(text, file=self._out, flush=True)

    def checkpoint_saved(self, path: Path, position: str, /) -> None:
        """Write the name of the checkpoint; the line before training has the folder."""
        self.message(saved_line(path, position))

    def task_started(self, index: int, count: int, name: str, steps: int, done: int = 0, /) -> None:
        """Write which task begins or is resumed."""
        self._name, self._position = name, f"{index + 1} of {count}"
        self._pace.begin(steps)
        left = f"{steps} of {counted(done + steps, 'step')}" if done else counted(steps, "step")
        self.message(f"Task {self._position}: {name}, {left} to go")
        self._last_line = self._clock()

    def step(self, report: StepReport, /) -> None:
        """Write a line if one is due."""
        self._pace.step(report.examples)
        if not self._due() and report.batch + 1 < report.batches:
            return
        self._progress(
            f"{self._name}: epoch {report.epoch + 1}/{report.epochs}, "
            f"batch {report.batch + 1}/{report.batches}, loss {report.loss:.4f}, "
            f"{self._pace.examples_per_second:.1f} examples/s, "
            f"{clock_time(self._pace.seconds_left)} left"
        )

    def activity(self, unit: Unit, /) -> None:
        """Write a line if one is due."""
        self._pace.pause()
        if self._due():
            self._progress(f"{unit.what}: {unit.done}/{unit.total}")

    def task_finished(self, scores: Mapping[str, TaskScore], /) -> None:
        """Write the scores."""
        self.message(f"Task {self._position} learned. {score_line(scores)}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        """Write the table; every column but the first has numbers."""
        show([Table(title, columns, rows, numbers=columns[1:])], Console(file=self._out))

    def _due(self) -> bool:
        return self._clock() - self._last_line >= self._interval

    def _progress(self, text: str) -> None:
        self._last_line = self._clock()
        self.message(text)


class QuietReporter(PlainReporter):
    """Writes messages and tables, no progress."""

    task_started, step = Reporter.task_started, Reporter.step
    activity, task_finished = Reporter.activity, Reporter.task_finished

    def checkpoint_saved(self, path: Path, position: str, /) -> None:
        """Write nothing."""
