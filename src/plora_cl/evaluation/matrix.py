"""Every score that was measured, and what each one depended on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from plora_cl.evaluation.routing.scores import Routed
from plora_cl.state import StateDict

Cell = tuple[float, float, str]

UNKNOWN = ""
"""Digest of a score that must not be taken for what would be measured now."""


UNTRAINED = -1
"""Row of the scores before anything was learned."""


class ScoreMatrix:
    """Accuracy and macro-F1 on task ``column`` after learning task ``row``, as a `Stateful`.

    Args:
        tasks: Number of tasks in the stream.
    """

    def __init__(self, tasks: int) -> None:
        self._columns = range(tasks)
        self._cells: dict[tuple[int, int], Cell] = {}
        self._routed: dict[tuple[int, int], Routed] = {}

    def record(self, row: int, column: int, accuracy: float, f1: float, digest: str) -> None:
        """Record scores in [0, 1].

        Args:
            row: Zero-based task that was learned last, or `UNTRAINED`.
            column: Zero-based task that was measured.
            accuracy: Of the predictions.
            f1: Their macro-F1.
            digest: Identifies everything that the predictions depended on.
        """
        self._cells[row, column] = (accuracy, f1, digest)

    def record_routed(self, row: int, column: int, routed: Routed) -> None:
        """Record the scores on ``column``, its texts' task inferred, after task ``row``."""
        self._routed[row, column] = routed

    def scores(self, row: int, column: int) -> tuple[float, float] | None:
        """Return accuracy and macro-F1 on ``column`` after task ``row``; None if never measured."""
        cell = self._cells.get((row, column))
        return cell and cell[:2]

    def routed(self, row: int, column: int) -> Routed | None:
        """Return what `record_routed` recorded, if it did."""
        return self._routed.get((row, column))

    def reusable(self, column: int, digest: str) -> tuple[float, float] | None:
        """Return scores on ``column`` that depended on exactly what ``digest`` identifies."""
        for (_, of), (accuracy, f1, known) in self._cells.items():
            if of == column and known == digest:
                return accuracy, f1
        return None

    @property
    def is_mixed(self) -> bool:
        """Whether some scores were measured under other settings than the run ended with."""
        return any(digest == UNKNOWN for _, _, digest in self._cells.values())

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracies ``[tasks, tasks]``, NaN where never measured."""
        return self._array(0)[:UNTRAINED]

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """Macro-F1 ``[tasks, tasks]``, NaN where never measured."""
        return self._array(1)[:UNTRAINED]

    @property
    def untrained_accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracies ``[tasks]`` before anything was learned, NaN where never measured."""
        return self._array(0)[UNTRAINED]

    @property
    def untrained_f1(self) -> npt.NDArray[np.float64]:
        """Macro-F1 ``[tasks]`` before anything was learned, NaN where never measured."""
        return self._array(1)[UNTRAINED]

    def _array(self, field: int) -> npt.NDArray[np.float64]:
        """Return one of the scores, ``[tasks + 1, tasks]``; the last row is `UNTRAINED`."""
        array = np.full((len(self._columns) + 1, len(self._columns)), np.nan)
        for place, cell in self._cells.items():
            array[place] = cell[field]
        return array

    def state_dict(self) -> StateDict:
        """Return every cell as plain numbers and strings; ``routed`` only if there is any."""
        routed = [
            [row, list(c.chosen), c.abstained, c.right_of_answered, column, c.accuracy, c.f1, ""]
            for (row, column), c in sorted(self._routed.items())
        ]
        cells = sorted(self._cells.items())
        return {
            **({"routed": routed} if routed else {}),
            "cells": [[row, column, *cell] for (row, column), cell in cells if row != UNTRAINED],
            "untrained": [[column, *cell] for (row, column), cell in cells if row == UNTRAINED],
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
        } | {(UNTRAINED, self._index(column)): _cell(cell) for column, *cell in state["untrained"]}
        self._routed = {
            (self._index(row), self._index(column)): _routed(chosen, abstained, right, accuracy, f1)
            for row, chosen, abstained, right, column, accuracy, f1, _ in state.get("routed", [])
        }

    def _index(self, index: object) -> int:
        if type(index) is not int or index not in self._columns:
            raise ValueError(f"a score of task {index!r}; expected 0 to {self._columns[-1]}")
        return index


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
