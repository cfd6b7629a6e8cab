"""Scores and costs of a run that has not ended: from its log and its newest checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from plora_cl.checkpoint.format.inspection import read_content
from plora_cl.checkpoint.format.sealed_zip import verified_manifest_of
from plora_cl.checkpoint.store.branches import newest_that
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError
from plora_cl.report.recorded.result_files import ComputationalCosts
from plora_cl.report.recorded.run_log import LogSummary
from plora_cl.report.run import Matrix, Scores


def newest_state(folder: Path) -> Mapping[str, Any]:
    """Return the state of the newest readable checkpoint; empty where there is none."""
    store = CheckpointStore(folder / "checkpoints")

    def read(entry: CheckpointEntry) -> Mapping[str, Any]:
        with store.opened(entry) as file:
            verified_manifest_of(file)
            state: Mapping[str, Any] = read_content(file)["state"]
            return state

    with suppress(CheckpointError):  # the section on checkpoints says what is wrong with them
        return newest_that(store, read, warn=False) or {}
    return {}


def scores_so_far(state: Mapping[str, Any], log: LogSummary, tasks: int) -> Scores:
    """Return the scores in a checkpoint, and those logged since.

    Args:
        state: Of the checkpoint, from `newest_state`.
        log: Its run log.
        tasks: Number of tasks.
    """
    found = _Cells(tasks)
    with suppress(TypeError, ValueError, AttributeError):  # edited: the log tells the same
        saved = state.get("scores", {})
        for row, column, accuracy, f1, _ in saved.get("cells", []):
            found.add(row, column, accuracy, f1)
        for column, accuracy, _, _ in saved.get("untrained", []):
            found.add_untrained(column, accuracy)
        for row, chosen, _, _, column, accuracy, _, _ in saved.get("routed", []):
            found.add_routed(row, column, accuracy, chosen)
    for (row, column), (accuracy, f1) in log.evaluations.items():
        found.add(row, column, accuracy, f1)
    for (row, column), event in log.routings.items():
        found.add_routed(row, column, event.get("accuracy"), event.get("chosen"))
    return found.scores()


def costs_so_far(state: Mapping[str, Any]) -> ComputationalCosts:
    """Return the costs in the state of a checkpoint; none where it has none."""
    try:
        return ComputationalCosts.model_validate(state.get("costs", {}))
    except ValidationError:
        return ComputationalCosts()


class _Cells:
    """Scores that are filled in one by one; what is no score of these tasks is left out."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._accuracy, self._f1, self._routed = (_unmeasured(tasks, tasks) for _ in range(3))
        self._untrained = _unmeasured(tasks)
        self._chosen: dict[int, tuple[int, list[int]]] = {}

    def add(self, row: object, column: object, accuracy: object, f1: object) -> None:
        place, scores = self._place(row, column), (_share(accuracy), _share(f1))
        if place is not None and None not in scores:
            self._accuracy[place], self._f1[place] = scores

    def add_untrained(self, column: object, accuracy: object) -> None:
        place, score = self._place(0, column), _share(accuracy)
        if place is not None and score is not None:
            self._untrained[place[1]] = score

    def add_routed(self, row: object, column: object, accuracy: object, chosen: object) -> None:
        place, score = self._place(row, column), _share(accuracy)
        if place is None or score is None:
            return
        self._routed[place] = score
        counts = chosen if isinstance(chosen, list) else []
        are_counts = all(type(n) is int and 0 <= n < 2**53 for n in counts)
        known, _ = self._chosen.get(place[1], (-1, []))
        if 0 < len(counts) <= self._tasks and are_counts and place[0] >= known:
            self._chosen[place[1]] = place[0], counts

    def scores(self) -> Scores:
        last = max((row for row, _ in self._chosen.values()), default=None)
        confusion = [
            counts if row == last else None
            for row, counts in (self._chosen.get(k, (-1, None)) for k in range(self._tasks))
        ]
        return Scores(self._accuracy, self._f1, self._routed, self._untrained, confusion)

    def _place(self, row: object, column: object) -> tuple[int, int] | None:
        if type(row) is not int or type(column) is not int:
            return None
        is_inside = 0 <= row < self._tasks and 0 <= column < self._tasks
        return (row, column) if is_inside else None


def _unmeasured(*shape: int) -> Matrix:
    return np.full(shape, np.nan)


def _share(value: object) -> float | None:
    return value if isinstance(value, float) and 0 <= value <= 1 else None
