"""A run log of any length, read once in constant memory and thinned for drawing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.bounded_reading import open_regular

MOST_POINTS = 300
"""A series is drawn with at most twice as many points."""

_LONGEST_LINE = 1 << 20
_MOST_PENALTIES, _MOST_EPOCHS = 12, 400
_LARGEST = 1e30  # beyond it axes overflow


class Point(NamedTuple):
    """Consecutive steps of a series: of one step where the series is short."""

    first: int
    last: int
    steps: int
    total: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        """The step where it is drawn."""
        return (self.first + self.last) / 2

    @property
    def mean(self) -> float:
        """Mean of its values."""
        return self.total / self.steps

    def joined(self, other: Point) -> Point:
        """Return it with the point that follows."""
        return Point(
            self.first,
            other.last,
            self.steps + other.steps,
            self.total + other.total,
            min(self.low, other.low),
            max(self.high, other.high),
        )


class Series:
    """Values by step. Where they are many, neighbours are joined into their mean, low and high.

    Whenever there are twice `MOST_POINTS` points, each two neighbours become one: a series of a
    million steps ends with points of 2048 steps each.
    """

    __slots__ = ("_closed", "_first", "_high", "_last", "_low", "_steps", "_total", "width")

    def __init__(self) -> None:
        self.width = 1
        self._closed: list[Point] = []
        self._first = self._last = self._steps = 0
        self._total = self._low = self._high = 0.0

    @property
    def points(self) -> list[Point]:
        """The points, in order."""
        return [*self._closed, self._open()] if self._steps else []

    def add(self, step: int, value: float) -> None:
        """Add the value of the next step."""
        if 0 < self._steps < self.width:
            self._last, self._steps, self._total = step, self._steps + 1, self._total + value
            if value < self._low:
                self._low = value
            elif value > self._high:
                self._high = value
            return
        if self._steps:
            self._closed.append(self._open())
            if len(self._closed) == 2 * MOST_POINTS:
                pairs = zip(self._closed[::2], self._closed[1::2], strict=True)
                self._closed = [one.joined(other) for one, other in pairs]
                self.width *= 2
        self._first = self._last = step
        self._steps, self._total, self._low, self._high = 1, value, value, value

    def _open(self) -> Point:
        return Point(self._first, self._last, self._steps, self._total, self._low, self._high)


@dataclass(slots=True)
class EpochSummary:
    """One epoch of one task; ``epoch`` is None where all epochs of a task are taken together."""

    task: int
    epoch: int | None
    steps: int = 0
    loss: float = 0.0
    with_loss: int = 0
    learning_rate: float | None = None

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over its steps."""
        return self.loss / self.with_loss if self.with_loss else None


@dataclass(slots=True)
class LogSummary:
    """What a run log says.

    Attributes:
        steps: Number of optimizer steps in it.
        last: The last step event; empty before the first step.
        loss: Training loss by step.
        replay_loss: Loss on replayed texts by step.
        learning_rate: By step.
        penalties: By name of the method, then by step.
        epochs: In order; one for each task where there are too many epochs.
        first_steps: By task: its first step.
        changes: Steps after which the run was resumed with other settings, and these.
        gaps: Steps before which records were lost.
        evaluations: By task learned and task measured: accuracy and macro-F1.
        routings: By task learned and task measured: the content of the event.
    """

    steps: int = 0
    last: Mapping[str, Any] = field(default_factory=dict)
    loss: Series = field(default_factory=Series)
    replay_loss: Series = field(default_factory=Series)
    learning_rate: Series = field(default_factory=Series)
    penalties: dict[str, Series] = field(default_factory=dict)
    epochs: dict[tuple[int, int | None], EpochSummary] = field(default_factory=dict)
    first_steps: dict[int, int] = field(default_factory=dict)
    changes: list[tuple[int, str]] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    evaluations: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    routings: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any]) -> None:
        """Add the next event; one that no run writes is left out."""
        kind = event.get("event")
        if kind == "step":
            self._add_step(event)
        elif kind == "evaluation" and (place := _place(event)) is not None:
            accuracy, f1 = _share(event.get("accuracy")), _share(event.get("f1"))
            if accuracy is not None and f1 is not None:
                self.evaluations[place] = accuracy, f1
        elif kind == "routing" and (place := _place(event)) is not None:
            self.routings[place] = event
        elif kind == "changed" and (step := _count(event.get("step"))) is not None:
            self.changes.append((step, _listed(event.get("changes"))))
        elif kind == "gap":
            self.gaps.append(_count(self.last.get("step")) or 0)

    def _add_step(self, event: Mapping[str, Any]) -> None:
        step, task, epoch = (_count(event.get(name)) for name in ("step", "task", "epoch"))
        if step is None or task is None or epoch is None:
            return
        self.steps, self.last = self.steps + 1, event
        self.first_steps.setdefault(task, step)
        loss, rate = _number(event.get("loss")), _number(event.get("learning_rate"))
        numbers = [
            (self.loss, loss),
            (self.learning_rate, rate),
            (self.replay_loss, _number(event.get("replay_loss"))),
        ]
        penalties = event.get("penalties")
        for name, value in penalties.items() if isinstance(penalties, dict) else ():
            if name in self.penalties or len(self.penalties) < _MOST_PENALTIES:
                numbers.append((self.penalties.setdefault(name, Series()), _number(value)))
        for series, value in numbers:
            if value is not None:
                series.add(step, value)
        self._add_to_epoch(task, epoch, loss, rate)

    def _add_to_epoch(self, task: int, epoch: int, loss: float | None, rate: float | None) -> None:
        whole_tasks = (task, None) in self.epochs
        key = (task, None if whole_tasks else epoch)
        if key not in self.epochs and len(self.epochs) >= _MOST_EPOCHS:
            self._join_epochs()
            key = (task, None)
        found = self.epochs.setdefault(key, EpochSummary(task, key[1]))
        found.steps += 1
        if loss is not None:
            found.loss, found.with_loss = found.loss + loss, found.with_loss + 1
        found.learning_rate = rate if rate is not None else found.learning_rate

    def _join_epochs(self) -> None:
        joined: dict[tuple[int, int | None], EpochSummary] = {}
        for one in self.epochs.values():
            found = joined.setdefault((one.task, None), EpochSummary(one.task, None))
            found.steps, found.loss = found.steps + one.steps, found.loss + one.loss
            found.with_loss, found.learning_rate = (
                found.with_loss + one.with_loss,
                one.learning_rate,
            )
        self.epochs = joined


def read_log(path: Path) -> LogSummary:
    """Return what a run log says; nothing where there is none. Torn or foreign lines are left out.

    Raises:
        OSError: It cannot be read.
    """
    found = LogSummary()
    try:
        for event in _events(path):
            found.add(event)
    except FileNotFoundError:
        pass
    return found


def _events(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_regular(path) as file:
        while line := file.readline(_LONGEST_LINE):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event


def _number(value: object) -> float | None:
    if type(value) is not float and type(value) is not int:
        return None
    return float(value) if -_LARGEST <= value <= _LARGEST else None  # neither is NaN


def _share(value: object) -> float | None:
    found = _number(value)
    return found if found is not None and 0 <= found <= 1 else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _place(event: Mapping[str, Any]) -> tuple[int, int] | None:
    row, column = _count(event.get("task")), _count(event.get("on"))
    return None if row is None or column is None else (row, column)


def _listed(changes: object) -> str:
    if not isinstance(changes, list):
        return ""
    return ", ".join(
        f"{change.get('key')} {change.get('checkpoint')} → {change.get('now')}"
        for change in changes
        if isinstance(change, dict)
    )
