"""A live progress bar; importing it imports rich."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from plora_cl.cli.pace import Clock, Pace, clock_time, saved_line, score_line
from plora_cl.cli.tables import Table, show
from plora_cl.training.reporting import Reporter, StepReport, TaskScore
from plora_cl.units import Unit

_LEAST_BAR = 10


class Terminal(Console):
    """A terminal whose cursor stays visible: nothing could bring it back after a SIGKILL."""

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor alone."""
        return False


class BarReporter(Reporter):
    """Shows one bar for the task in training and one for each activity in between.

    Lines are printed above the bars and stay; the bars go when they are done.

    Args:
        console: A terminal, such as `Terminal`.
        clock: Seconds from any fixed origin.
    """

    def __init__(self, console: Console, *, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._pace = Pace(clock)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),  # takes what is left of the line
            MofNCompleteColumn(),
            TextColumn("{task.fields[details]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            transient=True,
        )
        self._training: TaskID | None = None
        self._activities: dict[str, TaskID] = {}
        self._position, self._title = "", ""
        self._details: tuple[str, str, str, str] | None = None

    def __enter__(self) -> Self:
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def message(self, text: str, /) -> None:
        """Print ``text`` above the bars, unbroken."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def checkpoint_saved(self, path: Path, position: str, /) -> None:
        """Print the name of the checkpoint; the line before training has the folder."""
        self.message(saved_line(path, position))

    def task_started(self, index: int, count: int, name: str, steps: int, done: int = 0, /) -> None:
        """Begin a bar over all steps of the task, at those that are done."""
        self._position = f"{index + 1} of {count}"
        self._pace.begin(steps)
        self._end_training()
        self._title = f"Task {index + 1}/{count} {name}"
        self._training = self._progress.add_task(
            self._title, total=done + steps, completed=done, details=""
        )
        self._details = None
        self._fit()

    def step(self, report: StepReport, /) -> None:
        """Move the bar of the task on."""
        self._pace.step(report.examples)
        if self._training is None:
            return
        self._details = (
            f"epoch {report.epoch + 1}/{report.epochs}",
            f"loss {report.loss:.4f}",
            f"{self._pace.examples_per_second:.1f} examples/s",
            f"{clock_time(self._pace.seconds_left)} left",
        )
        self._progress.update(self._training, advance=1)
        self._fit()

    def _fit(self) -> None:
        """Fit titles and details into the width, and leave the bars at least some of it."""
        tasks = {task.id: task for task in self._progress.tasks}
        if not tasks:
            return
        count = max(2 * len(f"{task.total or 0:.0f}") + 1 for task in tasks.values())
        room = self._console.width - count - _LEAST_BAR - 3  # a blank between two columns
        names = {task: what for what, task in self._activities.items()}
        if self._training is not None:
            names[self._training] = self._title
        titles = {task: _cut(names[task], max(room // 2, 1)) for task in tasks}
        left_over = room - max(map(cell_len, titles.values()))
        for task, title in titles.items():
            details = self._longest(left_over) if task == self._training else ""
            self._progress.update(task, description=title, details=details)

    def _longest(self, room: int) -> str:
        """Return as many of the details as there is room for, the speed the first to go."""
        if not self._details:
            return ""
        epoch, loss, _, left = self._details
        choices = (self._details, (epoch, loss, left), (epoch, left), (left,), ())
        lines = ("  ".join(parts) for parts in choices)
        return next(line for line in lines if not line or len(line) <= room)

    def activity(self, unit: Unit, /) -> None:
        """Advance the bar of the work; it disappears at the end."""
        what, done, total = unit
        self._pace.pause()
        if what not in self._activities:
            self._activities[what] = self._progress.add_task(what, total=total, details="")
        self._progress.update(self._activities[what], completed=done, total=total)
        if done >= total:
            self._progress.remove_task(self._activities.pop(what))
        self._fit()

    def task_finished(self, scores: Mapping[str, TaskScore], /) -> None:
        """Print the scores and remove the bar of the task."""
        self._end_training()
        line = f"Task {self._position} learned. {score_line(scores)}"
        self._progress.console.print(line, markup=False, highlight=False)  # broken at blanks

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        """Print a table; every column but the first has numbers."""
        show([Table(title, columns, rows, numbers=columns[1:])], self._progress.console)

    def _end_training(self) -> None:
        if self._training is not None:
            self._progress.remove_task(self._training)
            self._training = None


def _cut(title: str, width: int) -> str:
    if cell_len(title) <= width:
        return title
    return set_cell_size(title, width - 1).rstrip() + "\N{HORIZONTAL ELLIPSIS}"
