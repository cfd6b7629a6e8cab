"""The progress of a run, as it is shown to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.units import Unit

STANDS = {
    "prepare": "in preparation",
    "train": "in training",
    "validate": "before validation",
    "consolidate": "trained",
    "evaluate": "consolidated",
    "done": "learned and measured",
}
"""What was done last, by the phase that comes next."""


class TaskScore(NamedTuple):
    """Scores of a task on its test split, in [0, 1].

    Attributes:
        accuracy: None where it was not measured.
        f1: Macro-F1; None where it was not measured.
        largest: Share of the most frequent class, the accuracy of always answering it.
    """

    accuracy: float | None
    f1: float | None
    largest: float


class StepReport(NamedTuple):
    """Where training stands after an optimizer step.

    Attributes:
        task: Zero-based; the last of all tasks in joint training.
        epoch: Zero-based.
        epochs: Epochs that are planned.
        batch: Zero-based, the last one of the step.
        batches: Batches of an epoch.
        loss: Of the step.
        examples: Examples of the step.
    """

    task: int
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    examples: int


def standing(cursor: Mapping[str, Any]) -> str:
    """Return what a checkpoint has done, which tells it from an earlier one of the same name.

    Args:
        cursor: State of its cursor.
    """
    return f"step {cursor['step']}, task {cursor['task'] + 1} {STANDS[cursor['phase']]}"


class Reporter:
    """Receives the progress of a run and never changes it.

    Override the methods whose news are to be shown. By default `checkpoint_saved` is a message, and
    the others do nothing.
    """

    def message(self, text: str, /) -> None:
        """Show one line."""

    def checkpoint_saved(self, path: Path, position: str, /) -> None:
        """A checkpoint is durable.

        Args:
            path: Its file.
            position: What it has done, see `standing`.
        """
        self.message(f"Checkpoint saved: {path} ({position})")

    def task_started(self, index: int, count: int, name: str, steps: int, done: int = 0, /) -> None:
        """Task ``index`` of ``count`` begins or is resumed.

        Args:
            index: Zero-based; joint training has one task, of all tasks together.
            count: Number of tasks.
            name: Of the task.
            steps: Optimizer steps that are left.
            done: Optimizer steps that were done before.
        """

    def step(self, report: StepReport, /) -> None:
        """One optimizer step is done."""

    def activity(self, unit: Unit, /) -> None:
        """One unit of long work is done."""

    def task_finished(self, scores: Mapping[str, TaskScore], /) -> None:
        """The task is learned; ``scores`` has the scores of each task so far, by name."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        """Show a table."""
