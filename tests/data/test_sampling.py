from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plora_cl.data.sampling import held_out, rows_per_class, stratified_rows
from plora_cl.data.text_digest import text_hashes

labellings = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(
    lambda labels: np.array(labels, dtype=np.int64)
)


@given(labels=labellings, n=st.integers(1, 90), seed=st.integers(0, 3))
def test_a_stratified_subset_keeps_proportions_to_the_row(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]], n: int, seed: int
) -> None:
    rows = stratified_rows(labels, n, seed)
    assert rows.dtype == np.int64
    assert len(rows) == min(n, len(labels))
    assert (np.diff(rows) > 0).all()
    classes, counts = np.unique(labels, return_counts=True)
    taken = np.array([(labels[rows] == label).sum() for label in classes])
    if n >= len(classes):
        assert (taken >= 1).all()
    exact = len(rows) * counts / len(labels)
    if (exact >= 1).all() or n < len(classes):
        assert (np.abs(taken - exact) < 1).all()
    assert np.array_equal(rows, stratified_rows(labels, n, seed))


def test_a_rare_class_gets_its_row_from_the_largest_surplus() -> None:
    labels = np.array([0] * 96 + [1, 2, 3, 4], dtype=np.int64)
    taken = labels[stratified_rows(labels, 10, 0)]
    assert np.bincount(taken).tolist() == [6, 1, 1, 1, 1]


def test_another_seed_takes_other_rows() -> None:
    labels = np.zeros(1000, dtype=np.int64)
    assert not np.array_equal(stratified_rows(labels, 100, 0), stratified_rows(labels, 100, 1))


def test_a_subset_of_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 row"):
        stratified_rows(np.zeros(3, dtype=np.int64), 0, 0)


@given(labels=labellings, n=st.integers(1, 20), seed=st.integers(0, 3))
def test_a_limit_per_class_takes_so_many_of_each_or_all_there_are(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]], n: int, seed: int
) -> None:
    rows = rows_per_class(labels, n, seed)
    assert (np.diff(rows) > 0).all()
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        assert (labels[rows] == label).sum() == min(n, count)
    assert np.array_equal(rows, rows_per_class(labels, n, seed))


def test_another_seed_takes_other_rows_of_each_class() -> None:
    labels = np.arange(1000, dtype=np.int64) % 2
    assert not np.array_equal(rows_per_class(labels, 100, 0), rows_per_class(labels, 100, 1))


def test_no_row_of_each_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 row"):
        rows_per_class(np.zeros(3, dtype=np.int64), 0, 0)


def _hashes(texts: list[str]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return text_hashes(texts)


def test_the_held_out_texts_do_not_depend_on_the_order_of_the_rows() -> None:
    texts = [f"text {n}" for n in range(200)]
    labels = np.arange(200, dtype=np.int64) % 3
    chosen = held_out(_hashes(texts), labels, 0.1)
    assert np.bincount(labels[chosen]).tolist() == [7, 7, 7]
    order = np.random.default_rng(0).permutation(200)
    again = held_out(_hashes([texts[n] for n in order]), labels[order], 0.1)
    assert {texts[n] for n in np.flatnonzero(chosen)} == {
        texts[order[n]] for n in np.flatnonzero(again)
    }


def test_equal_texts_are_held_out_together_even_across_classes() -> None:
    texts = [f"text {n % 20}" for n in range(100)]
    labels = np.arange(100, dtype=np.int64) % 3
    chosen = held_out(_hashes(texts), labels, 0.3)
    out = {text for text, held in zip(texts, chosen, strict=True) if held}
    kept = {text for text, held in zip(texts, chosen, strict=True) if not held}
    assert out
    assert not out & kept


def test_every_class_stays_in_training_and_one_of_two_texts_is_held_out() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2], dtype=np.int64)
    chosen = held_out(_hashes(list("abcdef")), labels, 0.9)
    assert [int(chosen[labels == label].sum()) for label in range(3)] == [0, 1, 2]
