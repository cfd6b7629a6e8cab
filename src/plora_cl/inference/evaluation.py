"""The scores of an experiment on labelled texts that its run has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plora_cl.errors import DataError
from plora_cl.evaluation.metrics import scores, scores_by_class
from plora_cl.folders.labels import require_known
from plora_cl.inference.experiment import Experiment

_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one task on labelled texts, in [0, 1].

    Attributes:
        task: Its name.
        texts: Number of texts.
        accuracy: Of the predictions.
        f1: Their macro-F1 over all classes of the task; one that no text has, and that is never
            predicted, counts as 0.
        by_class: Precision, recall, F1 and number of texts (``support``) of each class.
    """

    task: str
    texts: int
    accuracy: float
    f1: float
    by_class: dict[str, dict[str, float]]


def evaluate(
    experiment: Experiment,
    texts: Sequence[str],
    labels: Sequence[str],
    task: str,
    *,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Return the scores of ``task`` on labelled texts.

    Args:
        experiment: What a run learned.
        texts: What to predict.
        labels: The class of each text.
        task: Whose adapter and head predict.
        batch_size: Texts in a forward pass; ``eval_batch_size`` of the run by default.
        progress: Receives the number of texts done.

    Raises:
        ModelError: There is no such task.
        DataError: There is no text, or a label is none of the task's classes.
    """
    classes = experiment.task(task).classes
    if not texts or len(texts) != len(labels):
        raise DataError(f"{len(texts)} texts and {len(labels)} labels; expected as many, and some")
    require_known(labels, classes, task, "labels")
    number = {name: index for index, name in enumerate(classes)}
    predicted: list[int] = []
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[first : first + _TEXTS_AT_ONCE]
        found = experiment.predict(some, task, batch_size=batch_size)
        predicted += [number[label] for label in found.labels]
        progress(len(predicted))
    columns = np.array(predicted), np.array([number[label] for label in labels])
    accuracy, f1 = scores(*columns, classes=len(classes))
    return Evaluation(task, len(texts), accuracy, f1, scores_by_class(*columns, classes=classes))
