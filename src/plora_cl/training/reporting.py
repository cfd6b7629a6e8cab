"""What a run tells the person who watches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

_STANDS = {
    "prepare": "in preparation",
    "train": "in training",
    "validate": "before validation",
    "consolidate": "trained",
    "evaluate": "consolidated",
    "done": "learned and measured",
}
"""What was done last where a phase comes next."""


class TaskScore(NamedTuple):
    """How a task stands, as a person is told; all in [0, 1].

    Attributes:
        accuracy: On its test split; None where it was not measured.
        f1: Macro-F1 there.
        largest: Share of the most frequent class there, the accuracy of always answering it.
    """

    accuracy: float | None
    f1: float | None
    largest: float


SAVED = "Checkpoint saved: "
"""How the message begins that a checkpoint is durable; its path, and in
brackets what it has, follow."""


def standing(cursor: Mapping[str, Any]) -> str:
    """Return what a checkpoint has that an earlier one of the same name had not.

    Args:
        cursor: State of its cursor.
    """
    return f"step {cursor['step']}, task {cursor['task'] + 1} {_STANDS[cursor['phase']]}"


class Reporter(Protocol):
    """Receives the progress of a run; never changes it."""

    def message(self, text: str, /) -> None:
        """Show one line."""
        ...

    def task_started(self, index: int, count: int, name: str, steps: int, done: int = 0, /) -> None:
        """Task ``index`` of ``count`` begins, or goes on.

        Args:
            index: Zero-based.
            count: Number of tasks.
            name: Of the task.
            steps: Optimizer steps that are left.
            done: Optimizer steps that were done before.
        """
        ...

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
        """One optimizer step over ``examples`` examples is done."""
        ...

    def activity(self, what: str, done: int, total: int, /) -> None:
        """``done`` of ``total`` units of ``what`` are finished."""
        ...

    def task_finished(self, index: int, scores: Mapping[str, TaskScore], /) -> None:
        """Task ``index`` is learned; ``scores`` has those of each task so far, by name."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        """Show a table."""
        ...


class SilentReporter:
    """A `Reporter` that shows nothing."""

    def message(self, text: str, /) -> None:
        """Show nothing."""

    def task_started(self, index: int, count: int, name: str, steps: int, done: int = 0, /) -> None:
        """Show nothing."""

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
        """Show nothing."""

    def activity(self, what: str, done: int, total: int, /) -> None:
        """Show nothing."""

    def task_finished(self, index: int, scores: Mapping[str, TaskScore], /) -> None:
        """Show nothing."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        """Show nothing."""
