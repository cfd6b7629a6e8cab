"""The scores of an experiment: those that it published, or else those of its newest checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plora_cl.checkpoint.format.inspection import read_content
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.store.branches import newest_that
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError
from plora_cl.folders.found import is_experiment, perhaps_meant
from plora_cl.folders.published import RESULTS, ClassScores, Shown, results_in
from plora_cl.folders.recorded import routed_scores, scores, task_names

METRICS = (
    "average_accuracy",
    "average_f1",
    "backward_transfer",
    "forward_transfer",
    "forgetting",
    "learning_accuracy",
    "routed_average_accuracy",
)
"""Of a finished run, in the order of the tables."""

Matrix = Sequence[Sequence[float | None]]
"""``[learned last, measured on]``; None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The scores of a task on its test split, in [0, 1]; None where nothing was measured.

    Attributes:
        name: Of the task.
        learned: Accuracy right after the task was learned.
        accuracy: Accuracy after the last task that was learned.
        f1: Macro-F1 then.
        routed: Accuracy then, with the task of each text inferred.
        routed_f1: Macro-F1 then, with the task inferred.
        texts: Of the test split.
        largest: Share of its largest class.
        by_class: Scores of each class at the end of the run; empty where they are not known.
    """

    name: str
    learned: float | None
    accuracy: float | None
    f1: float | None
    routed: float | None = None
    routed_f1: float | None = None
    texts: int | None = None
    largest: float | None = None
    by_class: Mapping[str, ClassScores] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The scores of an experiment.

    Attributes:
        folder: Of the experiment.
        tasks: One for each task of the stream.
        learned: Number of tasks that are learned to their end.
        metrics: `METRICS` of a finished run; empty while it is not finished.
        zero: Metrics that are zero by construction, and why.
        source: The file that the scores are from.
    """

    folder: Path
    tasks: Sequence[TaskOutcome]
    learned: int
    metrics: Mapping[str, float | None]
    zero: Mapping[str, str]
    source: Path

    @property
    def is_finished(self) -> bool:
        """Whether every task was learned and the results were published."""
        return bool(self.metrics)


def outcome_of(folder: Path) -> Outcome:
    """Return the scores of the experiment in ``folder``. A run may be under way there.

    Raises:
        CheckpointNotFoundError: It is no experiment.
        CorruptCheckpointError: The results were edited, or every checkpoint is damaged.
        CheckpointError: A file cannot be read.
    """
    if not is_experiment(folder):
        raise CheckpointNotFoundError(f"{folder} is no experiment; {perhaps_meant(folder)}")
    try:
        results = results_in(folder)
    except OSError as error:
        path = folder / RESULTS
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    return _so_far(folder) if results is None else _published(folder, results)


def _published(folder: Path, results: Mapping[str, Any]) -> Outcome:
    path = folder / RESULTS
    try:
        found = Shown.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CorruptCheckpointError(
            f"{path} is damaged or was edited: {place}: {first['msg']}; remove it and resume the "
            "run with --resume, which writes it again"
        ) from error
    count = len(found.tasks)
    tasks = [
        TaskOutcome(
            name=task.name,
            learned=_at(found.accuracy_matrix, place, place),
            accuracy=_at(found.accuracy_matrix, count - 1, place),
            f1=_at(found.f1_matrix, count - 1, place),
            routed=_at(found.routed_accuracy_matrix, count - 1, place),
            routed_f1=_at(found.routed_f1_matrix, count - 1, place),
            texts=task.test,
            largest=task.largest_class_share,
            by_class=found.by_class.get(task.name) or {},
        )
        for place, task in enumerate(found.tasks)
    ]
    metrics = {
        **{name: getattr(found, name, None) for name in METRICS},
        "average_f1": found.f1.average_accuracy,
        "routed_average_accuracy": found.routed.average_accuracy,
    }
    return Outcome(folder, tasks, count, metrics, found.zero_by_construction, path)


def _so_far(folder: Path) -> Outcome:
    found = newest_content(folder)
    if found is None:
        raise CheckpointNotFoundError(
            f"{folder} has neither results nor a checkpoint yet; nothing was measured"
        )
    entry, manifest, content = found
    names = task_names(manifest.settings)
    if not names:
        raise CheckpointError(
            f"{entry.path} was saved by a program of its own, and does not name tasks; see: "
            f"plora-cl checkpoints inspect {folder}"
        )
    return Outcome(
        folder, tasks_so_far(names, content), len(manifest.trained_tasks), {}, {}, entry.path
    )


def newest_content(folder: Path) -> tuple[CheckpointEntry, Manifest, dict[str, Any]] | None:
    """Return the newest readable checkpoint of an experiment, its manifest and its content.

    The bytes of the manifest and of plain values are verified; objects are not read.

    Raises:
        CorruptCheckpointError: Every checkpoint is damaged.
        CheckpointError: The newest one cannot be read.
    """
    store = CheckpointStore(folder / "checkpoints")

    def readable(entry: CheckpointEntry) -> tuple[CheckpointEntry, Manifest, dict[str, Any]]:
        manifest = store.manifest(entry)
        with store.opened(entry) as file:
            return entry, manifest, read_content(file)

    return newest_that(store, readable, warn=False)


def tasks_so_far(names: Sequence[str], content: Mapping[str, Any]) -> list[TaskOutcome]:
    """Return the scores in a checkpoint.

    Args:
        names: Of all tasks of the stream.
        content: Of the checkpoint.

    Raises:
        CorruptCheckpointError: The scores are not what a run saves.
    """
    state = content["state"]
    cells = {(cell["learned"], cell["on"]): cell for cell in scores(state)["cells"]}
    routed = {(cell["learned"], cell["on"]): cell for cell in routed_scores(state)}
    last = max((learned for learned, _ in cells), default=0)

    def score(of: Mapping[tuple[int, int], Mapping[str, Any]], row: int, on: int, key: str) -> Any:
        # The next task is measured too, for forward transfer, before it is learned
        return of[row, on][key] if (row, on) in of and on <= row else None

    return [
        TaskOutcome(
            name,
            score(cells, on, on, "accuracy"),
            score(cells, last, on, "accuracy"),
            score(cells, last, on, "f1"),
            score(routed, last, on, "accuracy"),
            score(routed, last, on, "f1"),
        )
        for on, name in enumerate(names)
    ]


def _at(matrix: Matrix, row: int, column: int) -> float | None:
    return matrix[row][column] if row < len(matrix) and column < len(matrix[row]) else None
