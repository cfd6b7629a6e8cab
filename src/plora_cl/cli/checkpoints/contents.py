"""Checkpoints in words: status, sizes, position and scores, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from plora_cl.checkpoint.tools.inventory import Finding
from plora_cl.folders.recorded import task_names
from plora_cl.training.reporting import STANDS
from plora_cl.wording import counted


def status(found: Finding, intact: str) -> str:
    """Return ``damaged``, ``unreadable`` where the disk refuses, ``intact`` without a problem."""
    if found.problem is None:
        return intact
    return "damaged" if found.is_damaged else "unreadable"


def problems(found: Iterable[Finding]) -> Iterator[str]:
    """Return a line for each checkpoint with a problem, to stand below their table."""
    return (f"{status(each, '')}: {each.problem}" for each in found if each.problem)


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
