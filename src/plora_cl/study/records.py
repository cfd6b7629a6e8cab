"""The results of runs as flat records, checked before anybody compares them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from plora_cl.config.errors import shown
from plora_cl.config.schema import EXAMPLE_SETTINGS, holds_out
from plora_cl.config.task_entry import task_name
from plora_cl.errors import StudyError
from plora_cl.study.plan import PlannedRun
from plora_cl.study.result_values import (
    DamagedError,
    list_at,
    mapping_at,
    mappings_at,
    number,
    number_or_none,
    string_at,
)

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
"""Metrics of every run, in the order of the tables; followed by one accuracy for each task."""

_TOLERANCE = 1e-9
_MOST_SECONDS = 1e12  # tens of thousands of years


@dataclass(frozen=True, slots=True)
class Record:
    """What one run measured.

    Attributes:
        run: The run.
        values: Metrics by name; None where one is not defined or was not measured.
        zero_by_construction: Metrics that could not be anything but zero, and why.
        data: Digests of the examples of each task.
    """

    run: PlannedRun
    values: Mapping[str, float | None]
    zero_by_construction: Mapping[str, str]
    data: Sequence[Mapping[str, Any]]

    def is_of(self, method: str | None, variant: str) -> bool:
        """Tell whether it is a run of a method in a variant."""
        return (self.run.method, self.run.variant) == (method, variant)


@dataclass(frozen=True, slots=True)
class Validation:
    """What a trial measured.

    Attributes:
        run: The trial.
        accuracy: On the validation texts, mean over tasks after the last one, in [0, 1].
        texts: How many there are, at least 1.
        data: Digests of the examples of each task.
    """

    run: PlannedRun
    accuracy: float
    texts: int
    data: Sequence[Mapping[str, Any]]


def record(run: PlannedRun, results: Mapping[str, Any]) -> Record:
    """Return the record of a run that is done.

    Raises:
        StudyError: They are damaged, or the metrics contradict one another.
    """
    with _damage_refused(run):
        names = _task_names(run, results)
        values = _values(results, names)
        zeros = mapping_at(results, "zero_by_construction")
        found = Record(
            run, values, {name: string_at(zeros, name) for name in zeros}, _data(results, names)
        )
    _check_identity(run, values, tasks=len(names))
    return found


def validation(run: PlannedRun, results: Mapping[str, Any]) -> Validation:
    """Return what a trial that is done measured.

    Raises:
        StudyError: Its results are damaged.
    """
    with _damage_refused(run):
        data = _data(results, _task_names(run, results))
        measured = mapping_at(results, "validation").get("average_accuracy")
        texts = [
            number(task.get("validation"), "validation texts", 1, 2**53)
            for task in mappings_at(results, "tasks")
        ]
        accuracy = number(measured, "validation accuracy", 0, 1)
        return Validation(run, accuracy, int(sum(texts)), data)


@contextmanager
def _damage_refused(run: PlannedRun) -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise StudyError(
            f"{run.folder}: its results are damaged or were edited ({error}): remove results/ "
            "and start again"
        ) from error


def _task_names(run: PlannedRun, results: Mapping[str, Any]) -> list[str]:
    names = [string_at(task, "name") for task in mappings_at(results, "tasks")]
    planned = [task_name(entry) for entry in run.settings.tasks]
    if names != planned:
        raise DamagedError(f"tasks are {shown(names)}; expected {shown(planned)}")
    return names


def _values(results: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, float | None]:
    found = {
        **{name: results.get(name) for name in METRICS},
        "average_f1": mapping_at(results, "f1").get("average_accuracy"),
        "routed_average_accuracy": mapping_at(results, "routed").get("average_accuracy"),
        "routing_gap": mapping_at(results, "gap").get("average_accuracy"),
    }
    seconds = found.pop("wall_clock_seconds")
    final = list_at(results, "accuracy_matrix")[-1]
    if not isinstance(final, list) or len(final) != len(tasks):
        raise DamagedError(
            f"accuracy_matrix ends with {shown(final)}; expected {len(tasks)} numbers"
        )
    number(found["average_accuracy"], "average_accuracy", 0, 1)  # every run has one
    return {
        **{name: number_or_none(value, name, -1, 1) for name, value in found.items()},
        "wall_clock_seconds": number_or_none(seconds, "wall_clock_seconds", 0, _MOST_SECONDS),
        **{
            task_metric(task): number_or_none(accuracy, task_metric(task), 0, 1)
            for task, accuracy in zip(tasks, final, strict=True)
        },
    }


def _data(results: Mapping[str, Any], tasks: Sequence[str]) -> list[Mapping[str, Any]]:
    data = mappings_at(mapping_at(results, "identity"), "data")
    names = [string_at(task, "name") for task in data]
    if names != tasks:
        raise DamagedError(f"identity.data is of the tasks {shown(names)}; expected {shown(tasks)}")
    for task, key in product(data, ("train", "test")):
        string_at(task, key)
    for task in data:
        if "source" in task:  # earlier versions did not record it
            string_at(task, "source")
    return data


def task_metric(task: str) -> str:
    """Return the name of the metric that is the final accuracy on a task."""
    return f"accuracy on {task}"


def metric_names(records: Sequence[Record]) -> list[str]:
    """Return the names of all metrics of ``records``, those that all runs have first."""
    return list(dict.fromkeys([*METRICS, *(name for one in records for name in one.values)]))


def are_pair(one: Record, other: Record) -> bool:
    """Tell whether two runs learned from, and were measured on, the same texts.

    They have the same order and seed, the same settings that pick the examples, and the same
    texts held out.
    """
    if _examples(one.run) != _examples(other.run):
        return False
    if holds_out(one.run.settings) == holds_out(other.run.settings):
        return True
    # Training texts validate in one of them, unless the tasks have validation splits.
    return [task["train"] for task in one.data] == [task["train"] for task in other.data]


def check_same_examples(records: Sequence[Record]) -> None:
    """Make sure that runs whose settings pick the same examples had the same.

    Raises:
        StudyError: Two of them had not, so that their difference would mean nothing.
    """
    first: dict[str, Record] = {}
    for one in records:
        settings = one.run.settings
        tokens = [settings.model_name, settings.max_length, holds_out(settings)]
        other = first.setdefault(json.dumps([_examples(one.run), tokens]), one)
        for mine, theirs in zip(one.data, other.data, strict=True):
            different = [split for split in ("train", "test") if mine[split] != theirs[split]]
            if different:
                raise StudyError(
                    f"{one.run.name} and {other.run.name} have different {different[0]} examples "
                    f"of the task {mine['name']!r}, so that they cannot be compared; the files "
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
        return  # learned at once, or one task only
    expected = learned + (tasks - 1) / tasks * backward
    if abs(average - expected) > _TOLERANCE:
        raise StudyError(
            f"{run.folder}: average accuracy {average} is not learning accuracy {learned} + "
            f"{tasks - 1}/{tasks} * backward transfer {backward} = {expected}; the result files "
            "are damaged or were edited: remove results/ and start again"
        )
