"""What a run left in its folder, as plain values that are drawn and tabulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plora_cl.report.recorded.run_log import LogSummary
from plora_cl.report.recorded.storage import Storage

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task of the stream.

    Attributes:
        name: Shown name.
        classes: Number of classes; None where no result says it.
        test: Number of texts in the test split.
        largest_share: Share of the largest class there: the accuracy of always answering it.
    """

    name: str
    classes: int | None = None
    test: int | None = None
    largest_share: float | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run cost.

    Attributes:
        seconds: By task, then by activity.
        steps: Optimizer steps by task.
        examples: Training examples by task, counted at each pass.
        peak_memory_bytes: Largest resident size of the process; 0 where it was not measured.
    """

    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    peak_memory_bytes: int = 0

    @property
    def total_seconds(self) -> float:
        """Seconds of all tasks and activities."""
        return sum(value for of_task in self.seconds.values() for value in of_task.values())


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores on the test splits in [0, 1], NaN where nothing was measured.

    Attributes:
        accuracy: ``[tasks, tasks]``: after learning the task of the row, on that of the column.
        f1: Macro-F1, the same way.
        routed: Accuracy with the task of each text inferred, the same way.
        untrained: ``[tasks]``: accuracy before anything was learned.
        confusion: For each task, how many of its texts the router sent to each task; None where it
            was not measured.
    """

    accuracy: Matrix
    f1: Matrix
    routed: Matrix
    untrained: Matrix
    confusion: Sequence[Sequence[int] | None]

    @property
    def learned(self) -> int:
        """Number of tasks up to the last one after which something was measured."""
        rows = np.flatnonzero(np.isfinite(self.accuracy).any(axis=1))
        return int(rows[-1]) + 1 if rows.size else 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run, finished or not.

    Attributes:
        folder: Its experiment.
        label: What it is called in the report.
        state: Where it stands, in words.
        is_finished: Whether its final results are there.
        settings: As they were recorded.
        tasks: In the order in which they are learned.
        scores: On the test splits.
        metrics: Metrics of accuracy by name; None where one is not defined. Of a run that has not
            ended, those of the tasks learned so far.
        zero_by_construction: Metrics that are zero for any weights, and why.
        average_f1: Mean macro-F1 after the last task.
        routed_accuracy: Mean accuracy after the last task, with the task of each text inferred.
        costs: What it cost.
        parameters: Parameter counts by kind.
        log: Its run log, thinned.
        storage: Its checkpoints.
        results: The content of ``final_results.json``; None before the end.
    """

    folder: Path
    label: str
    state: str
    is_finished: bool
    settings: Mapping[str, Any]
    tasks: Sequence[TaskFacts]
    scores: Scores
    metrics: Mapping[str, float | None]
    zero_by_construction: Mapping[str, str]
    average_f1: float | None
    routed_accuracy: float | None
    costs: Costs
    parameters: Mapping[str, int]
    log: LogSummary
    storage: Storage
    results: Mapping[str, Any] | None

    @property
    def names(self) -> list[str]:
        """Names of the tasks."""
        return [task.name for task in self.tasks]

    @property
    def is_routed(self) -> bool:
        """Whether anything was measured with the task inferred."""
        return bool(np.isfinite(self.scores.routed).any())
