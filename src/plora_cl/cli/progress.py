"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from plora_cl.training.reporting import Reporter, SilentReporter

Clock = Callable[[], float]


def reporter_for(*, quiet: bool = False) -> AbstractContextManager[Reporter]:
    """Return the reporter that suits stdout."""
    if quiet:
        return nullcontext(SilentReporter())
    from rich.console import Console

    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        from plora_cl.cli.progress_bar import BarReporter

        return BarReporter(console)
    return nullcontext(PlainReporter(sys.stdout))


class Pace:
    """How fast a task is learned; what happens between steps does not count.

    Args:
        clock: Seconds from any fixed origin.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.begin(0)

    def begin(self, steps: int) -> None:
        """Start anew with ``steps`` to go."""
        self._left, self._steps, self._examples, self._seconds = steps, 0, 0, 0.0
        self.pause()

    def pause(self) -> None:
        """Leave out the time since the last step."""
        self._last = self._clock()

    def step(self, examples: int) -> None:
        """Count one step over ``examples`` examples."""
        now = self._clock()
        self._seconds += now - self._last
        self._last = now
        self._steps += 1
        self._examples += examples
        self._left = max(self._left - 1, 0)

    @property
    def examples_per_second(self) -> float:
        """Mean since the task began or went on; 0 before anything is known."""
        return self._examples / self._seconds if self._seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Until the last epoch ends, at the present pace."""
        return self._left * self._seconds / self._steps if self._steps else 0.0


class PlainReporter:
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

    def task_started(self, index: int, count: int, name: str, steps: int, /) -> None:
        """Write which task begins or goes on."""
        self._name, self._position = name, f"{index + 1} of {count}"
        self._pace.begin(steps)
        self.message(f"Task {self._position}: {name}, {steps} steps to go")
        self._last_line = self._clock()

    def step(
        self,
        task: int,
        epoch: int,
        epochs: int,
        batch: int,
        batches: int,
        loss: float,
        examples: int,
        /,
    ) -> None:
        """Write a line if one is due."""
        self._pace.step(examples)
        if not self._due() and batch + 1 < batches:
            return
        self._progress(
            f"{self._name}: epoch {epoch + 1}/{epochs}, batch {batch + 1}/{batches}, "
            f"loss {loss:.4f}, {self._pace.examples_per_second:.1f} examples/s, "
            f"{clock_time(self._pace.seconds_left)} left"
        )

    def activity(self, what: str, done: int, total: int, /) -> None:
        """Write a line if one is due."""
        self._pace.pause()
        if self._due():
            self._progress(f"{what}: {done}/{total}")

    def task_finished(self, index: int, scores: Mapping[str, float | None], /) -> None:
        """Write the accuracies."""
        self.message(f"Task {self._position} learned. {score_line(scores)}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        """Write the table in aligned columns."""
        widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
        self.message(title)
        for cells in (columns, ["-" * width for width in widths], *rows):
            first = cells[0].ljust(widths[0])
            others = (c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))
            self.message("  ".join((first, *others)).rstrip())

    def _due(self) -> bool:
        return self._clock() - self._last_line >= self._interval

    def _progress(self, text: str) -> None:
        self._last_line = self._clock()
        self.message(text)


def score_line(scores: Mapping[str, float | None]) -> str:
    """Return accuracies in per cent; a task that was not measured has none."""
    shown = (f"{n} {'-' if s is None else format(s, '.1%')}" for n, s in scores.items())
    return f"Accuracy: {', '.join(shown)}"


def clock_time(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
