"""The pace of training, and its lines for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from plora_cl.training.reporting import TaskScore

Clock = Callable[[], float]


class Pace:
    """The pace of training; time between steps that is not training does not count.

    Args:
        clock: Seconds from any fixed origin.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.begin(0)

    def begin(self, steps: int) -> None:
        """Start again with ``steps`` left."""
        self._left, self._steps, self._examples, self._seconds = steps, 0, 0, 0.0
        self.pause()

    def pause(self) -> None:
        """Do not count the time since the last step."""
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
        """Mean since the task began or was resumed; 0 before the first step."""
        return self._examples / self._seconds if self._seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Until the last epoch ends, at the current pace."""
        return self._left * self._seconds / self._steps if self._steps else 0.0


def saved_line(path: Path, position: str) -> str:
    """Return that a checkpoint is durable, without its folder, which stays the same in a run."""
    return f"Checkpoint saved: {path.name} ({position})"


def score_line(scores: Mapping[str, TaskScore]) -> str:
    """Return scores in per cent; ``-`` for a task that was not measured."""
    shown = (
        f"{name} {_percent(s.accuracy)} ({_percent(s.f1)}; {_percent(s.largest)})"
        for name, s in scores.items()
    )
    return f"Accuracy (macro-F1; share of the largest class): {', '.join(shown)}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def clock_time(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
