"""A run from its folder: finished, or in progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from plora_cl.checkpoint.disk.lock import holder_of
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.config.locations import RECORD, found_again
from plora_cl.config.yaml_file import read_mapping
from plora_cl.data.sources.entry import task_name
from plora_cl.errors import CorruptCheckpointError, ReportError
from plora_cl.evaluation import metrics
from plora_cl.report.labels import clean
from plora_cl.report.recorded.result_files import (
    ComputationalCosts,
    FinalResults,
    checked,
    read_json,
    require_square,
)
from plora_cl.report.recorded.run_log import LogSummary, read_log
from plora_cl.report.recorded.sources import is_experiment
from plora_cl.report.recorded.storage import Storage, read_storage
from plora_cl.report.recorded.unfinished import costs_so_far, newest_state, scores_so_far
from plora_cl.report.run import Costs, Matrix, Run, Scores, TaskFacts

FINAL = Path("results") / "final_results.json"
COSTS = Path("results") / "computational_costs.json"

_MEASURED = (
    *("average_accuracy", "backward_transfer", "forgetting", "forward_transfer"),
    *("learning_accuracy", "average_anytime_accuracy"),
)


def read_run(
    folder: Path, *, label: str | None = None, task_names: Mapping[str, str] | None = None
) -> Run:
    """Return the run in ``folder``.

    Args:
        folder: Of the experiment.
        label: What to call it; the name of the folder by default.
        task_names: What to call some of its tasks, by their name.

    Raises:
        ReportError: It holds no run, or a result file is damaged.
        PloraError: Settings or checkpoints cannot be read.
    """
    folder = folder.absolute()
    if not is_experiment(folder):
        raise ReportError(f"{folder} holds no run: expected {RECORD} or checkpoints/ in it")
    storage = read_storage(folder / "checkpoints")
    content, costs = read_json(folder / FINAL), read_json(folder / COSTS)
    settings = _settings(folder, storage)
    log = _log(folder)
    found = (
        _finished(content, folder) if content is not None else _unfinished(folder, settings, log)
    )
    if costs is not None and content is not None:
        found.costs = _costs(checked(ComputationalCosts, costs, folder / COSTS))
    _rename(found, task_names or {})
    return Run(
        folder=folder,
        label=clean(label or folder.name),
        state=_state(folder, found, log),
        is_finished=content is not None,
        settings=settings,
        tasks=found.tasks,
        scores=found.scores,
        metrics=found.metrics,
        zero_by_construction=found.zero,
        average_f1=found.average_f1,
        routed_accuracy=found.routed,
        costs=found.costs,
        parameters=found.parameters,
        log=_with_departures(log, _trajectory(content, storage, folder)),
        storage=storage,
        results=content,
    )


def renaming(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Return new names of the tasks of a run, by their names.

    Raises:
        ReportError: They are not one for each task.
    """
    if len(names) != len(run.tasks):
        raise ReportError(
            f"--task-names: {len(names)} names for the {len(run.tasks)} tasks of {run.folder}; "
            "expected one for each, in the order of training"
        )
    return {old: clean(new) for old, new in zip(run.names, names, strict=True)}


@dataclass(slots=True)
class _Found:
    tasks: list[TaskFacts]
    scores: Scores
    metrics: Mapping[str, float | None]
    zero: Mapping[str, str]
    average_f1: float | None
    routed: float | None
    costs: Costs
    parameters: Mapping[str, int]


def _finished(content: dict[str, Any], folder: Path) -> _Found:
    path = folder / FINAL
    found = checked(FinalResults, content, path)
    require_square(found, path)
    tasks = [
        TaskFacts(clean(t.name), len(t.classes) or None, t.test, t.largest_class_share)
        for t in found.tasks
    ]
    missing: list[list[float | None]] = [[None] * len(tasks)] * len(tasks)
    scores = Scores(
        accuracy=_matrix(found.accuracy_matrix),
        f1=_matrix(found.f1_matrix),
        routed=_matrix(found.routed_accuracy_matrix or missing),
        untrained=_matrix(found.untrained_accuracy),
        confusion=found.confusion or [None] * len(tasks),
    )
    return _Found(
        tasks,
        scores,
        {name: getattr(found, name) for name in _MEASURED},
        {name: clean(reason) for name, reason in found.zero_by_construction.items()},
        found.f1.average_accuracy,
        found.routed.average_accuracy,
        Costs(),
        found.parameters,
    )


def _unfinished(folder: Path, settings: Mapping[str, Any], log: LogSummary) -> _Found:
    tasks = [TaskFacts(clean(name)) for name in _names(settings)]
    if not tasks:
        raise ReportError(f"{folder}: neither {RECORD} nor a checkpoint names the tasks of its run")
    state = newest_state(folder)
    scores = scores_so_far(state, log, len(tasks))
    k = scores.learned
    accuracy = scores.accuracy[:k, :k]
    measured: dict[str, float | None] = dict.fromkeys(_MEASURED)
    if k:
        measured |= {
            "average_accuracy": metrics.average_accuracy(accuracy),
            "backward_transfer": metrics.backward_transfer(accuracy),
            "forgetting": metrics.forgetting(accuracy),
            "forward_transfer": metrics.forward_transfer(accuracy, scores.untrained[:k]),
            "learning_accuracy": metrics.learning_accuracy(accuracy),
            "average_anytime_accuracy": metrics.average_anytime_accuracy(accuracy),
        }
    f1 = metrics.average_accuracy(scores.f1[:k, :k]) if k else None
    routed = metrics.average_accuracy(scores.routed[:k, :k]) if k else None
    costs = _costs(costs_so_far(state))
    return _Found(tasks, scores, measured, {}, f1, routed, costs, {})


def _settings(folder: Path, storage: Storage) -> Mapping[str, Any]:
    path = folder / RECORD
    values = read_mapping(path) if path.is_file() else storage.settings
    return {str(name): value for name, value in found_again(values, folder).items()}


def _names(settings: Mapping[str, Any]) -> list[str]:
    try:
        return [str(task_name(entry)) for entry in settings.get("tasks", [])]
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        return []  # of a file that no run has written


def _log(folder: Path) -> LogSummary:
    path = folder / RUN_LOG
    try:
        return read_log(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror or error}") from error


def _state(folder: Path, found: _Found, log: LogSummary) -> str:
    if (folder / FINAL).is_file():
        return "finished"
    running = "running" if holder_of(folder) is not None else "stopped"
    if not log.last:
        return f"{running}, no step is logged"
    task, step = int(log.last["task"]), int(log.last["step"])
    name = f" ({found.tasks[task].name})" if task < len(found.tasks) else ""
    place = f"task {task + 1} of {len(found.tasks)}{name}, epoch {int(log.last['epoch']) + 1}"
    return f"{running} in {place}, after step {step}"


def _rename(found: _Found, names: Mapping[str, str]) -> None:
    found.tasks = [replace(one, name=names.get(one.name, one.name)) for one in found.tasks]
    costs = found.costs
    found.costs = Costs(
        {names.get(name, name): value for name, value in costs.seconds.items()},
        {names.get(name, name): value for name, value in costs.steps.items()},
        {names.get(name, name): value for name, value in costs.examples.items()},
        costs.peak_memory_bytes,
    )


def _costs(found: ComputationalCosts) -> Costs:
    return Costs(
        {
            clean(task): {clean(what): value for what, value in of_task.items()}
            for task, of_task in found.seconds.items()
        },
        {clean(task): counts.get("steps", 0) for task, counts in found.counts.items()},
        {clean(task): counts.get("examples", 0) for task, counts in found.counts.items()},
        found.peak_memory_bytes,
    )


def _with_departures(log: LogSummary, trajectory: Trajectory) -> LogSummary:
    """Return the log with the changes that only a trajectory tells, such as those before a fork."""
    known = {step for step, _ in log.changes}
    for departure in trajectory.history:
        changes = ", ".join(f"{c['key']} {c['before']} → {c['now']}" for c in departure.changes)
        if departure.step not in known:
            log.changes.append((departure.step, changes))
    log.changes.sort()
    return log


def _trajectory(content: Mapping[str, Any] | None, storage: Storage, folder: Path) -> Trajectory:
    if content is None:
        return storage.trajectory
    try:
        return Trajectory.from_plain(content.get("trajectory"))
    except CorruptCheckpointError as error:
        raise ReportError(f"{folder / FINAL} was edited: {error}") from error


def _matrix(values: Iterable[Any]) -> Matrix:
    return np.array(list(values), dtype=np.float64)
