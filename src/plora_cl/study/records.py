"""The results of runs as flat records, checked before they are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from plora_cl.config.errors import shown
from plora_cl.config.schema import EXAMPLE_SETTINGS, holds_out
from plora_cl.data.sources.entry import task_name
from plora_cl.errors import StudyError
from plora_cl.folders.published import ExampleDigests, Published
from plora_cl.study.plan import PlannedRun

METRICS = (
    "average_accuracy",
    "average_f1",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "learning_accuracy",
    "average_anytime_accuracy",
    "routed_average_accuracy",
    "routing_gap",
    "wall_clock_seconds",
)
"""Metrics of every run in the order of the tables. One accuracy for each task follows them."""

_TOLERANCE = 1e-9
_FILE = "final_results.json"


@dataclass(frozen=True, slots=True)
class Record:
    """The measurements of a run.

    Attributes:
        run: The run.
        values: Metrics by name; None if a metric is undefined or was not measured.
        zero_by_construction: Metrics that are zero for any weights, and why.
        data: Digests of the examples of each task.
    """

    run: PlannedRun
    values: Mapping[str, float | None]
    zero_by_construction: Mapping[str, str]
    data: Sequence[ExampleDigests]

    def is_of(self, method: str | None, variant: str) -> bool:
        """Return whether it is a run of ``method`` in ``variant``."""
        return (self.run.method, self.run.variant) == (method, variant)


@dataclass(frozen=True, slots=True)
class Validation:
    """The measurements of a trial.

    Attributes:
        run: The trial.
        accuracy: Validation accuracy after the last task, mean over tasks, in [0, 1].
        texts: Number of validation texts, at least 1.
        data: Digests of the examples of each task.
    """

    run: PlannedRun
    accuracy: float
    texts: int
    data: Sequence[ExampleDigests]


def record(run: PlannedRun, results: Mapping[str, Any]) -> Record:
    """Return the record of a run that is done.

    Raises:
        StudyError: The results are damaged, or the metrics contradict each other.
    """
    found = _checked(run, results)
    values = {
        **{name: getattr(found, name, None) for name in METRICS},
        "average_f1": found.f1.average_accuracy,
        "routed_average_accuracy": found.routed.average_accuracy,
        "routing_gap": found.gap.average_accuracy,
        **{
            task_metric(task.name): accuracy
            for task, accuracy in zip(found.tasks, found.accuracy_matrix[-1], strict=True)
        },
    }
    _check_identity(run, values, tasks=len(found.tasks))
    return Record(run, values, found.zero_by_construction, found.identity.data)


def validation(run: PlannedRun, results: Mapping[str, Any]) -> Validation:
    """Return the measurements of a trial that is done.

    Raises:
        StudyError: The results are damaged.
    """
    found = _checked(run, results)
    accuracy = None if found.validation is None else found.validation.average_accuracy
    texts = [task.validation for task in found.tasks]
    if accuracy is None or not all(texts):
        raise _damaged(run, f"{_FILE}: validation: accuracy or number of texts is missing")
    return Validation(run, accuracy, sum(texts), found.identity.data)


def _checked(run: PlannedRun, results: Mapping[str, Any]) -> Published:
    try:
        found = Published.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        keys = map(str, first["loc"])
        place = ".".join(key if key.replace("_", "").isalnum() else shown(key) for key in keys)
        problem = f"{_FILE}: {place}: {first['msg']}, found {shown(first['input'])}"
        raise _damaged(run, problem) from error
    planned = [task_name(entry) for entry in run.settings.tasks]
    for place, named in (("tasks", found.tasks), ("identity.data", found.identity.data)):
        if (names := [task.name for task in named]) != planned:
            problem = f"{place} has the tasks {shown(names)}; expected {shown(planned)}"
            raise _damaged(run, f"{_FILE}: {problem}")
    if len(final := found.accuracy_matrix[-1]) != len(planned):
        problem = f"accuracy_matrix ends with {shown(final)}; expected {len(planned)} numbers"
        raise _damaged(run, f"{_FILE}: {problem}")
    return found


def _damaged(run: PlannedRun, problem: str) -> StudyError:
    return StudyError(
        f"{run.folder}: its results are damaged or were edited ({problem}): remove results/ and "
        "start again"
    )


def task_metric(task: str) -> str:
    """Return the name of the metric that is the final accuracy on a task."""
    return f"accuracy on {task}"


def metric_names(records: Sequence[Record]) -> list[str]:
    """Return the names of all metrics of ``records``; `METRICS` come first."""
    return list(dict.fromkeys([*METRICS, *(name for one in records for name in one.values)]))


def are_pair(one: Record, other: Record) -> bool:
    """Return whether two runs learned from, and were measured on, the same texts.

    A pair has the same order, the same seed, the same settings that pick examples, and the same
    texts held out.
    """
    if _examples(one.run) != _examples(other.run):
        return False
    if holds_out(one.run.settings) == holds_out(other.run.settings):
        return True
    # One of them holds training texts out, unless the tasks have validation splits
    return [task.train for task in one.data] == [task.train for task in other.data]


def check_same_examples(records: Sequence[Record]) -> None:
    """Make sure that runs whose settings pick the same examples had the same examples.

    Raises:
        StudyError: Two such runs had different examples.
    """
    first: dict[str, Record] = {}
    for one in records:
        settings = one.run.settings
        tokens = [settings.model_name, settings.max_length, holds_out(settings)]
        other = first.setdefault(json.dumps([_examples(one.run), tokens]), one)
        for mine, theirs in zip(one.data, other.data, strict=True):
            if (mine.train, mine.test) != (theirs.train, theirs.test):
                split = "train" if mine.train != theirs.train else "test"
                raise StudyError(
                    f"{one.run.name} and {other.run.name} have different {split} examples of the "
                    f"task {mine.name!r}, so that they cannot be compared; the files "
                    "must have changed in between: remove the older folder and start again"
                )


def _examples(run: PlannedRun) -> list[Any]:
    settings = run.settings.model_dump(mode="json", include=set(EXAMPLE_SETTINGS))
    return [run.order, run.seed, settings]


def _check_identity(run: PlannedRun, values: Mapping[str, float | None], *, tasks: int) -> None:
    """Source: ACC = LA + (T-1)/T * BWT follows from their definitions (see `metrics`)."""
    average, learned, backward = (
        values[name] for name in ("average_accuracy", "learning_accuracy", "backward_transfer")
    )
    if average is None or learned is None or backward is None:
        return  # joint training, or a single task
    expected = learned + (tasks - 1) / tasks * backward
    if abs(average - expected) > _TOLERANCE:
        raise StudyError(
            f"{run.folder}: average accuracy {average} is not learning accuracy {learned} + "
            f"{tasks - 1}/{tasks} * backward transfer {backward} = {expected}; the result files "
            "are damaged or were edited: remove results/ and start again"
        )
