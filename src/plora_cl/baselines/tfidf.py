"""TF-IDF features and logistic regression."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from plora_cl.data.sampling import held_out
from plora_cl.data.text_digest import text_hashes
from plora_cl.data.tokens.scan import VALIDATION_FRACTION

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Candidate inverse strengths of the L2 penalty, chosen by validation accuracy."""

_MOST_ITERATIONS = 1000

Examples: TypeAlias = tuple[Sequence[str], npt.NDArray[np.int64]]
"""Texts, and the index of the class of each, ``[texts]``."""


class FloorPredictions(NamedTuple):
    """Predictions of the best model.

    Attributes:
        strength: Inverse penalty strength of the model.
        validation_accuracy: Accuracy with that strength on the validation texts, in [0, 1]; None
            if no text could be held out.
        predicted: Class indices of the test texts, ``[texts]``.
    """

    strength: float
    validation_accuracy: float | None
    predicted: npt.NDArray[np.int64]


def tfidf_predictions(
    train: Examples, validation: Examples, test_texts: Sequence[str]
) -> FloorPredictions:
    """Fit word 1-grams and 2-grams with sublinear term frequency, and predict; deterministic.

    Of equally good penalties the strongest is chosen. Without validation texts a tenth of the
    training texts chooses the penalty, and the final model is fitted to all training texts.

    Source: Zhang et al. 2015, "Character-level Convolutional Networks for Text Classification",
    section 3.1, whose traditional baselines are n-grams, TF-IDF and logistic regression.
    """
    if not len(validation[1]):
        return _with_part_of_training(train, test_texts)
    vectorizer = _vectorizer()
    features = vectorizer.fit_transform(train[0])
    validating = vectorizer.transform(validation[0])
    best: tuple[float, float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        model = _fitted(features, train[1], strength)
        accuracy = float(np.mean(model.predict(validating) == validation[1]))
        if best is None or accuracy > best[1]:
            best = strength, accuracy, model
    assert best is not None
    predicted = best[2].predict(vectorizer.transform(test_texts))
    return FloorPredictions(best[0], best[1], predicted)


def _with_part_of_training(train: Examples, test_texts: Sequence[str]) -> FloorPredictions:
    texts, labels = np.asarray(train[0], dtype=object), train[1]
    out = held_out(text_hashes(train[0]), labels, VALIDATION_FRACTION)
    strength, accuracy = STRENGTHS[0], None
    if out.any():
        kept = (texts[~out].tolist(), labels[~out])
        strength, accuracy, _ = tfidf_predictions(kept, (texts[out].tolist(), labels[out]), ["-"])
    vectorizer = _vectorizer()
    model = _fitted(vectorizer.fit_transform(train[0]), labels, strength)
    return FloorPredictions(strength, accuracy, model.predict(vectorizer.transform(test_texts)))


def _vectorizer() -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)


def _fitted(features: Any, labels: npt.NDArray[np.int64], strength: float) -> LogisticRegression:
    with warnings.catch_warnings():  # a task may have few examples of each class
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        return LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS).fit(features, labels)
