"""Scores of a continual learner, from its matrix of results.

``R[i, j]`` is the score on task ``j`` after learning task ``i``, both zero-based, in [0, 1], NaN
where it was never measured. Every function returns None where the number is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

Matrix = npt.NDArray[np.float64]


def scores(
    predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: int
) -> tuple[float, float]:
    """Return accuracy and macro-F1 over all ``classes``, both in [0, 1].

    Args:
        predicted: ``[examples]``, class indices.
        labels: ``[examples]``, class indices.
        classes: Number of classes; one that never occurs and is never predicted counts as F1 0.
    """
    f1 = f1_score(labels, predicted, labels=np.arange(classes), average="macro", zero_division=0.0)
    return float(accuracy_score(labels, predicted)), float(f1)


def scores_by_class(
    predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return precision, recall and F1 of each class, in [0, 1], and its number of examples.

    Args:
        predicted: ``[examples]``, class indices.
        labels: ``[examples]``, class indices.
        classes: Names of the classes; what is not defined, such as the precision of one that is
            never predicted, counts as 0.
    """
    columns = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=0.0
    )
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(classes, *columns, strict=True)
    }


def average_accuracy(results: Matrix) -> float | None:
    """Return the mean over tasks after the last one: ``mean_j R[T, j]``.

    Source: Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory", eq. 2.
    """
    return _mean(results[-1])


def learning_accuracy(results: Matrix) -> float | None:
    """Return the mean over tasks right after each was learned: ``mean_i R[i, i]``.

    Source: Riemer et al. 2019, "Learning to Learn without Forgetting", section 5.
    """
    return _mean(np.diagonal(results))


def backward_transfer(results: Matrix) -> float | None:
    """Return ``1/(T-1) sum_{i<T} (R[T, i] - R[i, i])``; negative where tasks were forgotten.

    Source: Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory", eq. 3.
    """
    return _mean(results[-1, :-1] - np.diagonal(results)[:-1])


def forward_transfer(results: Matrix, untrained: Matrix) -> float | None:
    """Return ``1/(T-1) sum_{i>=2} (R[i-1, i] - b_i)``.

    Args:
        results: ``[T, T]``.
        untrained: ``b [T]``, scores with randomly initialised heads before any task.

    Source: Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory", eq. 4.
    """
    return _mean(np.diagonal(results, offset=1) - untrained[1:])


def forgetting(results: Matrix) -> float | None:
    """Return ``1/(T-1) sum_{j<T} (max_{l<T} R[l, j] - R[T, j])``.

    Source: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", eq. 3.
    """
    if len(results) < 2:
        return None
    learned = np.where(np.tri(len(results), dtype=bool), results, -np.inf)[:-1, :-1]
    return _mean(learned.max(axis=0) - results[-1, :-1])


def average_anytime_accuracy(results: Matrix) -> float | None:
    """Return ``mean_k mean_{j<=k} R[k, j]``.

    Source: Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change", section 4.
    """
    rows = [results[k, : k + 1].mean() for k in range(len(results))]
    return _mean(np.asarray(rows))


def require_identity(results: Matrix) -> None:
    """Make sure that ``ACC = LA + (T-1)/T BWT``, which follows from the three definitions.

    A matrix without the scores that all three need is left alone.

    Raises:
        AssertionError: It does not hold to within 1e-9: a metric is computed wrongly.
    """
    final, learned = average_accuracy(results), learning_accuracy(results)
    backward = backward_transfer(results) if len(results) > 1 else 0.0
    if final is None or learned is None or backward is None:
        return
    expected = learned + (len(results) - 1) / len(results) * backward
    assert abs(final - expected) <= 1e-9, f"ACC is {final!r}, LA + (T-1)/T BWT is {expected!r}"


def _mean(values: Matrix) -> float | None:
    if values.size == 0 or not np.isfinite(values).all():
        return None
    return float(values.mean())
