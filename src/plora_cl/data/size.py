"""How much data a task has, from one pass over its rows; nothing is tokenised."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from plora_cl.data.sources.base import Row, TaskSource
from plora_cl.data.tokens.scan import scan


class TaskSize(NamedTuple):
    """What a run would learn from and be measured on.

    Attributes:
        name: Of the task.
        classes: Number of classes.
        train: Training examples, after texts were held out and a sample was drawn.
        validation: Validation examples.
        test: Test examples.
        held_out: Texts of the source's training split that validate instead.
    """

    name: str
    classes: int
    train: int
    validation: int
    test: int
    held_out: int


def task_size(
    source: TaskSource,
    *,
    max_train: int,
    max_evaluation: int,
    max_train_per_class: int,
    max_validation_per_class: int,
    hold_out: bool,
) -> TaskSize:
    """Return how many examples `plora_cl.data.loading.load_tasks` would take; 0 bounds nothing.

    Args:
        source: The task.
        max_train: Training examples.
        max_evaluation: Examples of each of the two other splits.
        max_train_per_class: Training examples of each class.
        max_validation_per_class: Validation examples of each class.
        hold_out: Whether a task without a validation split holds training texts out for it.

    Raises:
        DataError: A row cannot be read; every row is checked as for training.
    """
    counting = _Counting(source)
    found = scan(cast(TaskSource, counting), hold_out=hold_out)
    labels = {split: np.array(ids) for split, ids in counting.labels.items()}
    held_out = 0
    if "validation" not in labels:
        held = found.validates
        labels["validation"] = np.empty(0, int) if held is None else labels["train"][held]
        held_out = len(labels["validation"])
        labels["train"] = labels["train"] if held is None else labels["train"][~held]
    return TaskSize(
        source.name,
        len(found.classes),
        _taken(labels["train"], max_train_per_class, max_train),
        _taken(labels["validation"], max_validation_per_class, max_evaluation),
        _taken(labels["test"], 0, max_evaluation),
        held_out,
    )


def _taken(labels: np.ndarray[Any, np.dtype[np.int64]], per_class: int, limit: int) -> int:
    counts = np.bincount(labels) if len(labels) else labels
    count = int(np.minimum(counts, per_class).sum()) if per_class else len(labels)
    return min(count, limit) if limit else count


class _Counting:
    """A source whose rows leave the numbers of their labels in ``labels``, by split."""

    def __init__(self, source: TaskSource) -> None:
        self._source, self._numbers = source, dict[str, int]()
        self.labels: dict[str, array[int]] = {}

    def rows(self, split: str) -> Iterator[Row]:
        labels = self.labels[split] = array("q")
        for row in self._source.rows(split):
            labels.append(self._numbers.setdefault(row.label, len(self._numbers)))
            yield row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
