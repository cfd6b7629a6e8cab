"""``plora-cl results``: the scores of experiments, from their folders alone."""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from plora_cl.cli.command import Answer, argument, command
from plora_cl.cli.tables import Table
from plora_cl.errors import SettingsError
from plora_cl.folders.outcome import METRICS, Outcome, TaskOutcome, outcome_of
from plora_cl.wording import counted

_SIGNED = ("backward_transfer", "forward_transfer")
_OF_TASK = ("learned", "accuracy", "f1", "routed", "routed_f1", "texts", "largest")
_OF_CLASS = ("precision", "recall", "f1", "support")
_HEAD = ("experiment", "task", "class", "score", "value")


@command(
    "results",
    "Show the scores of experiments again: by task, by class and on the whole, with the task of "
    "each text given and inferred. Their folders are enough: data, model and machine of the run "
    "are not needed. A run that is not finished is shown with the scores of its newest checkpoint.",
    argument("experiments", metavar="EXPERIMENT", nargs="+", type=Path, help="its folder"),
    argument("--csv", action="store_true", help="print CSV: a line for each score"),
    examples=["experiments/demo", "experiments/demo experiments/other --csv > scores.csv"],
    ok="the scores were shown",
    found="a file of an experiment is damaged",
)
def show_results(arguments: Namespace) -> Answer:
    """Show scores."""
    if arguments.csv and arguments.json:
        raise SettingsError(["--csv and --json: keep one of them"])
    found = [outcome_of(folder) for folder in arguments.experiments]
    names = _names([outcome.folder for outcome in found])
    if arguments.csv:
        _print_csv(names, found)
        return Answer({}, ())
    document = {
        "experiments": [
            {"name": name, **_document(outcome)} for name, outcome in zip(names, found, strict=True)
        ]
    }
    return Answer(document, _one(found[0]) if len(found) == 1 else _several(names, found))


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart."""
    whole = [Path(folder).absolute().parts for folder in folders]
    for length in range(1, max(map(len, whole))):
        names = [str(Path(*parts[-length:])) for parts in whole]
        if len({*names}) == len({*whole}):
            return names
    return [str(folder) for folder in folders]


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "folder": str(outcome.folder),
        "source": str(outcome.source),
        "finished": outcome.is_finished,
        "tasks_learned": outcome.learned,
        "metrics": dict(outcome.metrics),
        "zero_by_construction": dict(outcome.zero),
        "tasks": [_task_document(task) for task in outcome.tasks],
    }


def _task_document(task: TaskOutcome) -> dict[str, Any]:
    by_class = {name: scores.model_dump() for name, scores in task.by_class.items()}
    return {**asdict(replace(task, by_class={})), "by_class": by_class}


def _print_csv(names: Sequence[str], found: Sequence[Outcome]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_HEAD)
    for name, outcome in zip(names, found, strict=True):
        for metric, value in outcome.metrics.items():
            writer.writerow((name, "", "", metric, value))
        for task in outcome.tasks:
            for score in _OF_TASK:
                writer.writerow((name, task.name, "", score, getattr(task, score)))
            for label, scores in task.by_class.items():
                for score in _OF_CLASS:
                    writer.writerow((name, task.name, label, score, getattr(scores, score)))


def _one(outcome: Outcome) -> Iterator[str | Table]:
    yield f"{outcome.folder}: {_standing(outcome)}"
    numbers = ("texts", "largest", "learned", "final", "F1", "routed", "routed F1")
    rows = [
        (
            *(task.name, _count(task.texts), _score(task.largest), _score(task.learned)),
            *(_score(task.accuracy), _score(task.f1)),
            *(_score(task.routed), _score(task.routed_f1)),
        )
        for task in outcome.tasks
    ]
    title = "Accuracy and macro-F1 on the test splits (routed: task inferred)"
    yield Table(title, ("task", *numbers), rows, numbers, ("largest", "texts", "routed F1"))
    if outcome.metrics:
        values = [(_words(name), _metric(outcome, name)) for name in METRICS]
        yield Table("Continual learning", ("metric", "value"), values, ["value"])
        for metric, reason in outcome.zero.items():
            yield f"{_words(metric).capitalize()} is zero by construction: {reason}"
    classes = [
        (
            *(task.name, label, _score(scores.precision), _score(scores.recall)),
            *(_score(scores.f1), str(scores.support)),
        )
        for task in outcome.tasks
        for label, scores in task.by_class.items()
    ]
    if classes:
        measured = ("precision", "recall", "F1", "texts")
        yield Table("By class, at the end", ("task", "class", *measured), classes, measured)


def _several(names: Sequence[str], found: Sequence[Outcome]) -> Iterator[str | Table]:
    for name, outcome in zip(names, found, strict=True):
        yield f"{name}: {_standing(outcome)}"
    rows = [(_words(name), *(_metric(outcome, name) for outcome in found)) for name in METRICS]
    yield Table("Continual learning", ("metric", *names), rows, names, splits=True)
    tasks = list(dict.fromkeys(task.name for outcome in found for task in outcome.tasks))
    by_name = [{task.name: task for task in outcome.tasks} for outcome in found]
    for title, score in (
        ("Accuracy on the test splits, at the end", "accuracy"),
        ("Macro-F1 on the test splits, at the end", "f1"),
        ("Accuracy, task inferred", "routed"),
    ):
        rows = [
            (task, *(_score(getattr(of.get(task), score, None)) for of in by_name))
            for task in tasks
        ]
        if any(cell != "-" for row in rows for cell in row[1:]):
            yield Table(title, ("task", *names), rows, names, splits=True)
    classes = list(
        dict.fromkeys(
            (task.name, label) for each in found for task in each.tasks for label in task.by_class
        )
    )
    rows = [
        (f"{task} / {label}", *(_class_f1(of.get(task), label) for of in by_name))
        for task, label in classes
    ]
    if rows:
        yield Table("F1 by class, at the end", ("task / class", *names), rows, names, splits=True)


def _class_f1(task: TaskOutcome | None, label: str) -> str:
    scores = task.by_class.get(label) if task is not None else None
    return _score(None if scores is None else scores.f1)


def _standing(outcome: Outcome) -> str:
    if outcome.is_finished:
        return f"{counted(outcome.learned, 'task')}, finished"
    return (
        f"{outcome.learned} of {counted(len(outcome.tasks), 'task')} learned, not finished; "
        f"scores of {outcome.source.name}"
    )


def _metric(outcome: Outcome, name: str) -> str:
    value = outcome.metrics.get(name)
    if value is None:
        return "-"
    return f"{value:+.3f}" if name in _SIGNED else f"{value:.3f}"


def _words(metric: str) -> str:
    return metric.replace("_", " ").replace("f1", "macro-F1").replace(" average", "")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
