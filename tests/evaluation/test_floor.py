"""The floor: TF-IDF and logistic regression."""

from __future__ import annotations

import warnings

import numpy as np

from plora_cl.baselines.tfidf import STRENGTHS, Examples, tfidf_predictions

RAIN, SUN = "a wet grey cloud over the hill", "a bright hot beach by the sea"


def examples(count: int, noise: int = 0) -> Examples:
    texts = [f"{RAIN if k % 2 else SUN} number {k}" for k in range(count)]
    labels = np.arange(count, dtype=np.int64) % 2
    labels[:noise] = 1 - labels[:noise]
    return texts, labels


def test_texts_that_differ_by_their_words_are_told_apart() -> None:
    test_texts, labels = examples(11)
    found = tfidf_predictions(examples(40), examples(10), test_texts)
    assert found.predicted.tolist() == labels.tolist()
    assert found.validation_accuracy == 1.0


def test_word_order_counts_through_pairs_of_words() -> None:
    pairs = ("good not bad", "bad not good")
    train = ([pairs[k % 2] for k in range(40)], np.arange(40, dtype=np.int64) % 2)
    found = tfidf_predictions(train, train, list(pairs))
    assert found.predicted.tolist() == [0, 1]


def test_the_same_examples_give_the_same_predictions() -> None:
    both = [tfidf_predictions(examples(30, 7), examples(10, 2), examples(9)[0]) for _ in range(2)]
    assert both[0].strength == both[1].strength
    assert np.array_equal(both[0].predicted, both[1].predicted)


def test_the_penalty_is_chosen_by_validation_accuracy_and_the_strongest_of_equals() -> None:
    assert tfidf_predictions(examples(40), examples(10), ["x"]).strength == STRENGTHS[0]
    rare = ([SUN] * 30 + [RAIN] * 3, np.array([0] * 30 + [1] * 3, dtype=np.int64))
    weaker = tfidf_predictions(rare, ([SUN, RAIN], np.array([0, 1], dtype=np.int64)), [RAIN])
    assert weaker.strength > STRENGTHS[0]
    assert weaker.validation_accuracy == 1.0
    assert weaker.predicted.tolist() == [1]


def test_without_validation_texts_a_tenth_chooses_and_all_of_training_is_learned() -> None:
    train = examples(40)
    nothing: Examples = ([], np.empty(0, dtype=np.int64))
    found = tfidf_predictions(train, nothing, examples(10)[0])
    assert found.strength in STRENGTHS
    assert found.validation_accuracy is not None
    assert 0 <= found.validation_accuracy <= 1
    assert found.predicted.tolist() == examples(10)[1].tolist()


def test_a_class_with_one_text_has_nothing_to_hold_out_and_is_learned_all_the_same() -> None:
    train = ([SUN, RAIN], np.array([0, 1], dtype=np.int64))
    found = tfidf_predictions(train, ([], np.empty(0, dtype=np.int64)), [RAIN])
    assert found.validation_accuracy is None
    assert found.predicted.tolist() == [1]


def test_many_classes_of_few_examples_are_no_reason_to_warn() -> None:
    texts = [f"{RAIN} {name}" for name in ("one", "two", "three", "four")]
    classes = np.array([0, 1, 2, 2], dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tfidf_predictions((texts, classes), (texts, classes), texts)
    assert found.predicted.shape == (4,)
