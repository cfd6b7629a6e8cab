"""Every score that was measured, and what each one depended on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from plora_cl.evaluation.routing.scores import Routed
from plora_cl.state import StateDict

Cell = tuple[float, float, str]

UNKNOWN = ""
"""Digest of a score that nobody may take for what would be measured now."""


class ScoreMatrix:
    """Accuracy and macro-F1 on task ``column`` after learning task ``row``, as a `Stateful`.

    Args:
        tasks: Number of tasks in the stream.
    """

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._cells: dict[tuple[int, int], Cell] = {}
        self._untrained: dict[int, Cell] = {}
        self._routed: dict[tuple[int, int], Routed] = {}

    def record(self, row: int, column: int, accuracy: float, f1: float, digest: str) -> None:
        """Record scores in [0, 1]; ``digest`` identifies all that the predictions depended on."""
        self._cells[row, column] = (accuracy, f1, digest)

    def record_untrained(self, column: int, accuracy: float, f1: float, digest: str) -> None:
        """Record the scores on a task before anything was learned."""
        self._untrained[column] = (accuracy, f1, digest)

    def record_routed(self, row: int, column: int, routed: Routed) -> None:
        """Record how the texts of ``column`` fared, their task inferred, after task ``row``."""
        self._routed[row, column] = routed

    def has(self, row: int, column: int) -> bool:
        """Tell whether ``column`` was measured after task ``row``."""
        return (row, column) in self._cells

    def has_routed(self, row: int, column: int) -> bool:
        """Tell whether `record_routed` was called for ``row`` and ``column``."""
        return (row, column) in self._routed

    def has_untrained(self, column: int) -> bool:
        """Tell whether ``column`` was measured before anything was learned."""
        return column in self._untrained

    def routed(self, row: int) -> list[Routed | None]:
        """Return what was measured with the task inferred after task ``row``, by task."""
        return [self._routed.get((row, column)) for column in self._columns]

    def reusable(self, column: int, digest: str) -> tuple[float, float] | None:
        """Return scores on ``column`` that depended on exactly what ``digest`` identifies."""
        measured = [cell for (_, j), cell in self._cells.items() if j == column]
        if column in self._untrained:
            measured.append(self._untrained[column])
        for accuracy, f1, known in measured:
            if known == digest:
                return accuracy, f1
        return None

    @property
    def is_mixed(self) -> bool:
        """Whether some scores were measured under other settings than the run ended with."""
        cells = [*self._cells.values(), *self._untrained.values()]
        return any(digest == UNKNOWN for _, _, digest in cells)

    def row(self, row: int) -> list[float | None]:
        """Return the accuracy on every task after learning task ``row``."""
        return [self._cells[row, j][0] if (row, j) in self._cells else None for j in self._columns]

    def f1_row(self, row: int) -> list[float | None]:
        """Return the macro-F1 on every task after learning task ``row``."""
        return [self._cells[row, j][1] if (row, j) in self._cells else None for j in self._columns]

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracies ``[tasks, tasks]``, NaN where never measured."""
        return self._array(0)

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """Macro-F1 ``[tasks, tasks]``, NaN where never measured."""
        return self._array(1)

    @property
    def untrained_accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracies ``[tasks]`` before anything was learned, NaN where never measured."""
        return self._untrained_array(0)

    @property
    def untrained_f1(self) -> npt.NDArray[np.float64]:
        """Macro-F1 ``[tasks]`` before anything was learned, NaN where never measured."""
        return self._untrained_array(1)

    def state_dict(self) -> StateDict:
        """Return every cell as plain numbers and strings; ``routed`` only if there is any."""
        routed = [
            [row, list(c.chosen), c.abstained, c.right_of_answered, column, c.accuracy, c.f1, ""]
            for (row, column), c in sorted(self._routed.items())
        ]
        return {
            **({"routed": routed} if routed else {}),
            "cells": [[row, column, *cell] for (row, column), cell in sorted(self._cells.items())],
            "untrained": [[column, *cell] for column, cell in sorted(self._untrained.items())],
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`.

        Raises:
            ValueError: A cell is not a place in the matrix with two scores and a digest.
            TypeError: A digest is not a string.
        """
        self._cells = {
            (self._index(row), self._index(column)): _cell(cell)
            for row, column, *cell in state["cells"]
        }
        self._untrained = {self._index(column): _cell(cell) for column, *cell in state["untrained"]}
        self._routed = {
            (self._index(row), self._index(column)): _routed(chosen, abstained, right, accuracy, f1)
            for row, chosen, abstained, right, column, accuracy, f1, _ in state.get("routed", [])
        }

    def _index(self, index: object) -> int:
        if type(index) is not int or index not in self._columns:
            raise ValueError(f"a score of task {index!r}; expected 0 to {self._tasks - 1}")
        return index

    @property
    def _columns(self) -> range:
        return range(self._tasks)

    def _array(self, field: int) -> npt.NDArray[np.float64]:
        array = np.full((self._tasks, self._tasks), np.nan)
        for (row, column), cell in self._cells.items():
            array[row, column] = cell[field]
        return array

    def _untrained_array(self, field: int) -> npt.NDArray[np.float64]:
        array = np.full(self._tasks, np.nan)
        for column, cell in self._untrained.items():
            array[column] = cell[field]
        return array


def _cell(values: Sequence[object]) -> Cell:
    accuracy, f1, digest = values
    if not isinstance(digest, str):
        raise TypeError(f"the digest of a score is {digest!r}; expected a string")
    return _score(accuracy), _score(f1), digest


def _routed(chosen: Sequence[object], *values: object) -> Routed:
    abstained, right, accuracy, f1 = values
    counts = tuple(map(_count, chosen))
    return Routed(counts, _count(abstained), _count(right), _score(accuracy), _score(f1))


def _score(value: object) -> float:
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise ValueError(f"a score is {value!r}; expected a number in [0, 1]")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a count of texts is {value!r}; expected a whole number")
    return value
