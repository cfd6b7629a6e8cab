"""The state of a run, from its folder: done, running, failed, unreadable, or still to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard

from plora_cl.checkpoint.disk.lock import holder_of
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.checkpoint.store.branches import line_of
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.errors import shown
from plora_cl.config.fields import impacts
from plora_cl.config.locations import RECORD, anchored_values
from plora_cl.config.schema import EXAMPLE_SETTINGS, compared_form, completed
from plora_cl.config.yaml_file import read_mapping
from plora_cl.errors import CorruptCheckpointError, PloraError, SettingsError, StudyError
from plora_cl.folders.found import FAILURE
from plora_cl.folders.published import RESULTS, json_object
from plora_cl.folders.steps import last_step, tail
from plora_cl.impact import Impact
from plora_cl.study.plan import PlannedRun

LOG, CONFIG = "log.txt", "run.yaml"
_PLACES = ("model_name", "tasks", "device")
_KEYS = frozenset(
    {"accuracy_matrix", "average_accuracy", "f1", "gap", "identity", "routed", "tasks"}
    | {"zero_by_construction"}
)
"""Keys that a comparison needs."""

_COMPARED_OF_FLOOR = (*EXAMPLE_SETTINGS, "seed", "model_name", "max_length")


class State(StrEnum):
    """Where a run stands."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    STOPPED = "stopped"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Status:
    """State of a run, with details in one line."""

    state: State
    detail: str = ""


def status_of(run: PlannedRun) -> Status:
    """Return the state of ``run``, from its folder alone.

    An unreadable folder is a state, not an error: other runs are not affected.
    """
    try:
        return _status(run)
    except (PloraError, OSError) as error:
        return Status(State.UNREADABLE, _one_line(error))


def results_of(run: PlannedRun) -> dict[str, Any] | None:
    """Return the results of ``run``.

    None if they cannot be read, or if any part of the run used other settings.
    """
    try:
        results = _results(run)
        return None if results is None or _changed(run) or _mixed(run) else results
    except (PloraError, OSError):
        return None  # `status_of` gives the reason


def last_line(folder: Path) -> str:
    """Return the last line of the log that is not blank."""
    lines = [line for line in tail(folder / LOG) if line.strip()]
    return lines[-1].strip() if lines else "nothing was logged"


def _status(run: PlannedRun) -> Status:
    if not run.folder.exists():
        return Status(State.WAITING)
    holder = holder_of(run.folder)
    if holder is not None:
        return Status(State.RUNNING, _progress(run) or f"process {holder.pid}")
    if changed := _changed(run):
        return Status(
            State.CHANGED,
            f"was run with other settings: {changed}; remove {run.folder}, undo the change, or "
            "give the study another name",
        )
    if mixed := _mixed(run):
        return Status(
            State.CHANGED,
            f"was resumed under other settings: {mixed}; remove {run.folder}, or give the "
            "study another name",
        )
    if _results(run) is not None:
        return Status(State.DONE)
    if failure := _json_at(run.folder / FAILURE):
        code, line = failure.get("exit_code", "unknown"), failure.get("line", "")
        how = "not started" if code is None else f"exit code {code}"
        return Status(State.FAILED, f"{how}: {line}")
    damaged = ""
    if (run.folder / RESULTS).is_file() and not _are_whole(_json_at(run.folder / RESULTS)):
        damaged = f"{RESULTS} is damaged; the run writes it again"
    if CheckpointStore(run.folder / "checkpoints").entries():
        return Status(State.STOPPED, damaged or _progress(run))
    return Status(State.WAITING, damaged)


def _results(run: PlannedRun) -> dict[str, Any] | None:
    """Return the results in the folder if they were made with the settings of ``run``."""
    results = _json_at(run.folder / RESULTS)
    if not _are_whole(results) or not (run.folder / RECORD).is_file():
        return None
    planned = anchored_values(compared_form(run.settings))
    made_by = anchored_values(completed(results["identity"]))
    compared = [name for name in _compared(run) if name not in _PLACES]
    return results if all(made_by[name] == planned[name] for name in compared) else None


def _are_whole(results: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    return (
        results is not None
        and results.keys() >= _KEYS
        and all(isinstance(results[name], dict) for name in ("f1", "routed", "gap", "identity"))
    )


def deciding_settings() -> tuple[str, ...]:
    """Return the names of the settings that decide the results of a run."""
    known = impacts().items()
    return tuple(name for name, impact in known if impact is not Impact.HARMLESS or name in _PLACES)


def _compared(run: PlannedRun) -> tuple[str, ...]:
    return _COMPARED_OF_FLOOR if run.is_floor else deciding_settings()


def _changed(run: PlannedRun) -> str:
    """Return the settings in which the run in the folder differs from the planned one."""
    recorded = run.folder / RECORD
    if not recorded.is_file():
        return ""  # it never started to learn
    try:
        found = anchored_values(completed(read_mapping(recorded)))
    except SettingsError as error:
        return error.problems[0]
    planned = anchored_values(compared_form(run.settings))
    return ", ".join(
        f"{name} {shown(found[name])} -> {shown(planned[name])}"
        for name in _compared(run)
        if found[name] != planned[name]
    )


def _mixed(run: PlannedRun) -> str:
    """Return the settings and data that changed between starts of the run.

    Results made under two settings belong to neither. A change of machine does not count.
    """
    head = line_of(CheckpointStore(run.folder / "checkpoints")).head
    if head is None:
        results = _json_at(run.folder / RESULTS)
        plain = results.get("trajectory") if results is not None else None
        try:
            head = Trajectory.from_plain(plain)
        except CorruptCheckpointError as error:
            return f"{RESULTS}: {error}"
    return ", ".join(
        f"{change['key']} {change['before']} -> {change['now']} after step {departure.step}"
        for departure in head.history
        for change in departure.changes
        if change["impact"] != Impact.HARMLESS and not change["key"].startswith("environment.")
    )


def _progress(run: PlannedRun) -> str:
    """Return the last step in the run log as text; empty if it has none."""
    step = last_step(run.folder)
    if step is None:
        return ""
    task = f"task {step.task + 1} of {len(run.settings.tasks)}"
    epoch = f"epoch {step.epoch + 1}/{run.settings.epochs}"
    name = "all tasks" if run.settings.joint else task
    return f"{name}: {epoch}, step {step.step}, loss {step.loss:.4g}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _json_at(path: Path) -> dict[str, Any] | None:
    try:
        return json_object(path)
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror or error}") from error
