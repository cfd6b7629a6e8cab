"""What a checkpoint records of its run, read without torch: names of tasks, and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plora_cl.data.sources.entry import task_name
from plora_cl.errors import CorruptCheckpointError

_CELL, _UNTRAINED, _ROUTED = 5, 4, 8  # entries of each, a digest last


def task_names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the tasks, in order, as far as the settings tell."""
    try:
        return [str(task_name(entry)) for entry in settings.get("tasks", [])]
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        return []  # of a file that no run has written


def scores(state: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the scores in a checkpoint: accuracy and macro-F1 in [0, 1].

    Returns:
        ``cells`` has one for each task ``learned`` last and task measured ``on``, both zero-based;
        ``untrained`` one for each task measured before anything was learned.

    Raises:
        CorruptCheckpointError: They are not what a run saves.
    """
    return {
        "cells": _cells(state, "cells", ("learned", "on"), _CELL),
        "untrained": _cells(state, "untrained", ("on",), _UNTRAINED),
    }


def routed_scores(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scores in a checkpoint with the task inferred, as ``cells`` of `scores`.

    Raises:
        CorruptCheckpointError: They are not what a run saves.
    """
    return _cells(state, "routed", ("learned", "", "", "", "on"), _ROUTED)


def _cells(
    state: Mapping[str, Any], name: str, places: Sequence[str], length: int
) -> list[dict[str, Any]]:
    try:
        return [_cell(cell, places, length) for cell in state.get("scores", {}).get(name, [])]
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CorruptCheckpointError(f"its scores are malformed: {error}") from error


def _cell(cell: Sequence[Any], places: Sequence[str], length: int) -> dict[str, Any]:
    if len(cell) != length:
        raise ValueError(f"{len(cell)} entries instead of {length}")
    where = {name: int(value) for name, value in zip(places, cell, strict=False) if name}
    accuracy, f1 = float(cell[-3]), float(cell[-2])
    if not (0 <= accuracy <= 1 and 0 <= f1 <= 1):
        raise ValueError(f"accuracy {accuracy} and macro-F1 {f1}, expected numbers in [0, 1]")
    return {**where, "accuracy": accuracy, "f1": f1}
