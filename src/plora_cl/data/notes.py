"""Notes on a task for the user, before it is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from plora_cl.data.task import Task
from plora_cl.data.tokens.scan import folded

SKEWED = 4
"""Texts of the largest class over the mean of the other classes, from which a task is skewed."""


def largest_share(labels: npt.NDArray[np.int64]) -> float:
    """Return the share of the most frequent label, in [0, 1]: the accuracy of always giving it.

    Args:
        labels: ``[examples]``, class indices, at least one.
    """
    return float(np.bincount(labels).max() / len(labels))


def held_out_note(task: Task) -> str | None:
    """Return a note on training texts held out for validation; None if there are none."""
    if not task.held_out:
        return None
    return (
        f"task {task.name} has no validation split: {task.held_out} of its "
        f"{task.held_out + task.kept} training texts are held out for it"
    )


def skew_note(task: Task, remedies: Sequence[str]) -> str | None:
    """Return a note on a task with one dominant class; None if it is balanced.

    Args:
        task: The task.
        remedies: Settings to try.
    """
    counts = np.bincount(task.train.labels, minlength=len(task.classes))
    largest, total = int(counts.argmax()), int(counts.sum())
    others = (total - int(counts[largest])) / (len(counts) - 1)
    if counts[largest] < SKEWED * others:
        return None
    tried = f"; try {' and '.join(remedies)}" if remedies else ""
    return (
        f"task {task.name} is skewed: {counts[largest] / total:.1%} of its {total} training texts "
        f"are {task.classes[largest]!r}, one of {len(counts)} classes, so that accuracy says "
        f"little: look at macro-F1{tried}"
    )


def lookalike_notes(task: Task) -> list[str]:
    """Return a note for each set of classes whose names differ only in white space or case."""
    counts = np.bincount(task.train.labels, minlength=len(task.classes)).tolist()
    alike: dict[str, list[int]] = {}
    for index, name in enumerate(task.classes):
        alike.setdefault(folded(name), []).append(index)
    return [
        f"task {task.name}: the classes {_listed(task.classes, counts, indices)} differ in white "
        "space or case alone and are learned as different ones; write them alike if they are the "
        "same"
        for indices in alike.values()
        if len(indices) > 1
    ]


def _listed(classes: Sequence[str], counts: Sequence[int], indices: Sequence[int]) -> str:
    shown = [f"{classes[index]!r} ({counts[index]} training texts)" for index in indices]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
