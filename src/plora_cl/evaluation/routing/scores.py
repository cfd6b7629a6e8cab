"""Scores with the task known (oracle) and with the task inferred (routed), side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from plora_cl.evaluation.metrics import scores
from plora_cl.state import StateDict

_ELSEWHERE = -1


class Routed(NamedTuple):
    """How the texts of one task fared when their task had to be inferred.

    Attributes:
        chosen: Texts sent to each task learned so far.
        abstained: Texts whose best task was doubtful; their answer counts all the same.
        right_of_answered: Texts answered rightly among those that were not doubtful.
        accuracy: In [0, 1], over all texts.
        f1: Macro-F1 over the classes of the task, in [0, 1].
    """

    chosen: tuple[int, ...]
    abstained: int
    right_of_answered: int
    accuracy: float
    f1: float


def routed_scores(
    routes: npt.NDArray[np.int64],
    doubtful: npt.NDArray[np.bool_],
    predicted: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    *,
    task: int,
    tasks: int,
    classes: int,
) -> Routed:
    """Score the texts of ``task`` when their task is inferred.

    An answer is a pair of task and class. It is right if both are, so a text that was sent to
    another task is answered wrongly, also by a class of the same name there; which one does not
    matter, and no other head is asked.

    Args:
        routes: The task each text was sent to, ``[examples]``.
        doubtful: Whether the router would rather abstain, ``[examples]``.
        predicted: What adapter and head of ``task`` answer, ``[examples]``.
        labels: True classes, ``[examples]``.
        task: Where the texts belong.
        tasks: Tasks learned so far.
        classes: Classes of ``task``.
    """
    answers = np.where(routes == task, predicted, _ELSEWHERE)
    accuracy, f1 = scores(answers, labels, classes=classes)
    return Routed(
        chosen=tuple(np.bincount(routes, minlength=tasks).tolist()),
        abstained=int(doubtful.sum()),
        right_of_answered=int(((answers == labels) & ~doubtful).sum()),
        accuracy=accuracy,
        f1=f1,
    )


def side_by_side(
    names: Sequence[str],
    oracle: Sequence[tuple[float, float] | None],
    routed: Sequence[Routed | None],
) -> StateDict:
    """Return ``oracle``, ``routed``, ``gap`` and ``confusion`` of ``final_results.json``.

    Args:
        names: Of the tasks.
        oracle: Accuracy and macro-F1 on each task after the last one; None if never measured.
        routed: The same with the task inferred.
    """
    known = [cell and {"accuracy": cell[0], "f1": cell[1]} for cell in oracle]
    inferred = [cell and _with_abstention(cell) for cell in routed]
    of_oracle, of_routed = _averaged(names, known), _averaged(names, inferred)
    gap = {
        key: None
        if of_oracle[key] is None or of_routed[key] is None
        else of_oracle[key] - of_routed[key]
        for key in ("average_accuracy", "average_f1")
    }
    confusion = [cell and list(cell.chosen) for cell in routed]
    return {"oracle": of_oracle, "routed": of_routed, "gap": gap, "confusion": confusion}


def _with_abstention(cell: Routed) -> StateDict:
    texts = sum(cell.chosen)
    answered = texts - cell.abstained
    return {
        "accuracy": cell.accuracy,
        "f1": cell.f1,
        "texts": texts,
        "abstained": cell.abstained,
        "accuracy_of_answered": cell.right_of_answered / answered if answered else None,
    }


def _averaged(names: Sequence[str], tasks: Sequence[StateDict | None]) -> StateDict:

    def mean(key: str) -> float | None:
        found = [task[key] for task in tasks if task is not None]
        return float(np.mean(found)) if len(found) == len(tasks) else None

    rows: list[dict[str, Any]] = [
        {"name": name, **(task or {"accuracy": None, "f1": None})}
        for name, task in zip(names, tasks, strict=True)
    ]
    return {"average_accuracy": mean("accuracy"), "average_f1": mean("f1"), "tasks": rows}
