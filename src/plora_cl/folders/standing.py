"""Where the run in the folder of an experiment stands, while it runs and afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.checkpoint.disk.lock import holder_of, recorded_holder
from plora_cl.checkpoint.disk.lock_holder import Holder
from plora_cl.checkpoint.store.branches import line_of
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.locations import RECORD
from plora_cl.config.yaml_file import read_mapping
from plora_cl.errors import PloraError, SettingsError
from plora_cl.folders.found import FAILURE
from plora_cl.folders.outcome import Outcome, newest_content, outcome_of, tasks_so_far
from plora_cl.folders.published import RESULTS, json_object
from plora_cl.folders.recorded import task_names
from plora_cl.folders.steps import last_step


class State(StrEnum):
    """What the run in a folder does."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    KILLED = "killed"
    FAILED = "failed"
    BEGUN = "begun"
    UNREADABLE = "unreadable"


@dataclass(slots=True)
class Standing:
    """Where a run stands; None for what is not known.

    Attributes:
        folder: Of the experiment.
        state: What the run does.
        holder: The process that holds the lock, or that left it behind when it was killed.
        task: One-based task in training.
        tasks: Number of tasks.
        name: Of the task in training.
        epoch: One-based epoch.
        epochs: Epochs of a task.
        phase: The phase that the run is in.
        step: Optimizer steps so far.
        loss: Of the last step.
        checkpoint: Name of the newest durable checkpoint.
        saved: When it was written, in seconds since the epoch.
        accuracies: On the test splits of the tasks that were measured, by name, in [0, 1].
        problem: Why the run failed, or cannot be read.
    """

    folder: Path
    state: State = State.BEGUN
    holder: Holder | None = None
    task: int | None = None
    tasks: int | None = None
    name: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    phase: str | None = None
    step: int | None = None
    loss: float | None = None
    checkpoint: str | None = None
    saved: float | None = None
    accuracies: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the newest checkpoint was written."""
        return None if self.saved is None else max(0.0, time.time() - self.saved)


def standing_of(folder: Path) -> Standing:
    """Return where the run in ``folder`` stands; a folder that cannot be read is a state."""
    found = Standing(folder)
    try:
        _look(found)
    except (PloraError, OSError) as error:
        found.state, found.problem = State.UNREADABLE, " ".join(str(error).split())
    return found


def _look(found: Standing) -> None:
    folder = found.folder
    alive = holder_of(folder)
    found.holder = alive or recorded_holder(folder)
    settings = _settings(folder)
    saved = _saved(folder)
    if saved is not None:
        settings = settings or saved.settings
        found.checkpoint, found.saved = saved.name, saved.modified
        found.step, found.phase = saved.cursor["step"], saved.cursor["phase"]
        found.task, found.epoch = saved.cursor["task"] + 1, saved.cursor["epoch"] + 1
        found.accuracies = saved.accuracies
    names = task_names(settings)
    outcome = _published(folder)
    if outcome is not None:
        _take_outcome(found, outcome)
    else:
        _take_log(found)
    if names and found.task is not None:
        found.tasks, found.epochs = len(names), _whole(settings.get("epochs"))
        found.name = names[min(found.task, len(names)) - 1]
        if settings.get("joint") is True:
            found.name = "all tasks"
    if found.epochs is not None and found.epoch is not None:
        found.epoch = min(found.epoch, found.epochs)  # after the last one
    failure = json_object(folder / FAILURE)
    if alive is not None:
        found.state = State.RUNNING
    elif outcome is not None:
        found.state, found.holder = State.FINISHED, None
    elif failure is not None:
        found.state, found.problem = State.FAILED, str(failure.get("line", ""))
    elif found.holder is not None:
        found.state = State.KILLED
    elif found.checkpoint is not None:
        found.state = State.STOPPED


def _take_outcome(found: Standing, outcome: Outcome) -> None:
    found.tasks = found.task = len(outcome.tasks)
    found.name, found.phase = outcome.tasks[-1].name, "done"
    scored = {task.name: task.accuracy for task in outcome.tasks}
    found.accuracies = {name: value for name, value in scored.items() if value is not None}


def _take_log(found: Standing) -> None:
    """Move on to the last step that the run log has."""
    last = last_step(found.folder)
    if last is not None and (found.step is None or last.step > found.step):
        found.task, found.epoch = last.task + 1, last.epoch + 1
        found.step, found.loss, found.phase = last.step, last.loss, "train"


def _settings(folder: Path) -> Mapping[Any, Any]:
    """Return what the run was started with; empty where its record is lost or damaged."""
    try:
        return read_mapping(folder / RECORD)
    except SettingsError:
        return {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


class _Saved(NamedTuple):
    """What the newest readable checkpoint says."""

    name: str
    modified: float
    cursor: Mapping[str, Any]
    settings: Mapping[str, Any]
    accuracies: Mapping[str, float]


def _saved(folder: Path) -> _Saved | None:
    entries = line_of(CheckpointStore(folder / "checkpoints")).entries
    if not entries:
        return None
    try:
        status = entries[-1].path.stat()
    except FileNotFoundError:  # removed meanwhile: there is a newer one
        return _read(folder)
    return _known(folder, entries[-1].path, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _known(folder: Path, path: Path, modified: int) -> _Saved | None:
    """Read the newest checkpoint once; the other arguments tell one from another."""
    del path, modified
    return _read(folder)


def _read(folder: Path) -> _Saved | None:
    found = newest_content(folder)
    if found is None:
        return None
    entry, manifest, content = found
    tasks = tasks_so_far(task_names(manifest.settings), content)
    return _Saved(
        entry.name,
        entry.path.stat().st_mtime,
        manifest.cursor,
        manifest.settings,
        {task.name: task.accuracy for task in tasks if task.accuracy is not None},
    )


def _published(folder: Path) -> Outcome | None:
    try:
        status = (folder / RESULTS).stat()
    except FileNotFoundError:
        return None
    found = _outcome(folder, status.st_mtime_ns)
    return found if found.is_finished else None


@lru_cache(maxsize=4096)
def _outcome(folder: Path, modified: int) -> Outcome:
    """Read the results; ``modified`` tells the cache one file from another."""
    del modified
    return outcome_of(folder)
