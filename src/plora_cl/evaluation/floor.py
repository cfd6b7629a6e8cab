"""The floor under every learner: TF-IDF features and logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of the L2 penalty to choose from by validation accuracy."""

_MOST_ITERATIONS = 1000

Examples: TypeAlias = tuple[Sequence[str], npt.NDArray[np.int64]]
"""Texts, and the index of the class of each, ``[texts]``."""


class FloorPredictions(NamedTuple):
    """What the best of the models that were fitted predicts.

    Attributes:
        strength: Its inverse penalty strength.
        validation_accuracy: Its accuracy on the validation texts, in [0, 1].
        predicted: Class indices of the test texts, ``[texts]``.
    """

    strength: float
    validation_accuracy: float
    predicted: npt.NDArray[np.int64]


def tfidf_predictions(
    train: Examples, validation: Examples, test_texts: Sequence[str]
) -> FloorPredictions:
    """Fit word 1-grams and 2-grams with sublinear term frequency, and predict; deterministic.

    Of equally good penalties the strongest is taken.

    Source: Zhang et al. 2015, "Character-level Convolutional Networks for Text Classification",
    section 3.1, whose traditional baselines are n-grams, TF-IDF and logistic regression.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = vectorizer.fit_transform(train[0])
    held_out = vectorizer.transform(validation[0])
    best: tuple[float, float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
        model.fit(features, train[1])
        accuracy = float(np.mean(model.predict(held_out) == validation[1]))
        if best is None or accuracy > best[1]:
            best = strength, accuracy, model
    assert best is not None
    predicted = best[2].predict(vectorizer.transform(test_texts))
    return FloorPredictions(best[0], best[1], predicted)
