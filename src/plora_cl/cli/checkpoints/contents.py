"""Checkpoints in words: status, sizes, position and scores, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from plora_cl.checkpoint.tools.inventory import Finding
from plora_cl.data.sources.entry import task_name
from plora_cl.errors import CorruptCheckpointError
from plora_cl.training.reporting import STANDS
from plora_cl.wording import counted

_CELL, _UNTRAINED = 5, 4  # entries of each, the digest last


def status(found: Finding, intact: str) -> str:
    """Return ``damaged``, ``unreadable`` where the disk refuses, ``intact`` without a problem."""
    if found.problem is None:
        return intact
    return "damaged" if found.is_damaged else "unreadable"


def problems(found: Iterable[Finding]) -> Iterator[str]:
    """Return a line for each checkpoint with a problem, to stand below their table."""
    return (f"{status(each, '')}: {each.problem}" for each in found if each.problem)


def shown_age(seconds: float) -> str:
    """Return an age in its largest whole unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def task_names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the tasks, in order, as far as the settings tell."""
    try:
        return [str(task_name(entry)) for entry in settings.get("tasks", [])]
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        return []  # of a file that no run has written


def named(names: Sequence[str], task: int) -> str:
    """Return the name of a task; its number where there is none."""
    return names[task] if 0 <= task < len(names) else f"task {task}"


def steps_done(cursor: Mapping[str, Any]) -> str:
    """Return in words the position of a `CheckpointManager`, which knows no tasks."""
    return f"after {counted(cursor['step'], 'step')}"


def standing(cursor: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return in words the position of a checkpoint in its run."""
    if not settings:
        return steps_done(cursor)
    names, task, phase = task_names(settings), int(cursor["task"]), cursor["phase"]
    place = f"task {task + 1} of {max(len(names), task + 1)} ({named(names, task)})"
    stands = f"{place} {STANDS.get(phase, phase)}"
    if phase != "train":
        return stands
    epochs = f"{cursor['epoch']} of {settings.get('epochs', '?')} epochs done"
    return f"{stands}, {epochs}" + f", then {cursor['batch']} batches" * bool(cursor["batch"])


def scores(state: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the scores in a checkpoint: accuracy and macro-F1 in [0, 1].

    Returns:
        ``cells`` has one for each task ``learned`` last and task measured ``on``, both zero-based;
        ``untrained`` one for each task measured before anything was learned.

    Raises:
        CorruptCheckpointError: They are not what a run saves.
    """
    found = state.get("scores", {})
    try:
        cells = [_cell(cell, ("learned", "on"), _CELL) for cell in found.get("cells", [])]
        untrained = [_cell(cell, ("on",), _UNTRAINED) for cell in found.get("untrained", [])]
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CorruptCheckpointError(f"its scores are malformed: {error}") from error
    return {"cells": cells, "untrained": untrained}


def score_rows(
    document: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]
) -> list[tuple[str, str, str, str]]:
    """Return rows of what was measured, on what, accuracy and macro-F1, for the last task learned.

    Args:
        document: What `scores` returned.
        names: Of the tasks.
    """
    cells = document["cells"]
    last = max((cell["learned"] for cell in cells), default=None)
    rows = [cell for cell in cells if cell["learned"] == last] or document["untrained"]
    after = "before training" if last is None else f"after {named(names, last)}"
    return [
        (after, named(names, cell["on"]), f"{cell['accuracy']:.3f}", f"{cell['f1']:.3f}")
        for cell in rows
    ]


def _cell(cell: Sequence[Any], places: Sequence[str], length: int) -> dict[str, Any]:
    if len(cell) != length:
        raise ValueError(f"{len(cell)} entries instead of {length}")
    where = {name: int(value) for name, value in zip(places, cell, strict=False)}
    accuracy, f1 = float(cell[-3]), float(cell[-2])
    if not (0 <= accuracy <= 1 and 0 <= f1 <= 1):
        raise ValueError(f"accuracy {accuracy} and macro-F1 {f1}, expected numbers in [0, 1]")
    return {**where, "accuracy": accuracy, "f1": f1}
