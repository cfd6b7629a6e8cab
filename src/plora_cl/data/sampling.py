"""Stratified subsets and held-out texts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plora_cl.seeds import derived_seed


def stratified_rows(labels: npt.NDArray[np.int64], n: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ``min(n, len(labels))`` rows, sorted, that keep the proportions of the classes.

    Every class that occurs keeps a row if ``n`` allows one each. A pure function of its
    arguments; all rows if ``n`` is not smaller than their number.

    Args:
        labels: ``[rows]``, int64.
        n: Rows wanted, at least 1.
        seed: Non-negative.
    """
    if n < 1:
        raise ValueError(f"n is {n}; a subset has at least 1 row")
    if n >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    classes, counts = np.unique(labels, return_counts=True)
    return _drawn(labels, classes.tolist(), _shares(counts, n), seed)


def rows_per_class(labels: npt.NDArray[np.int64], n: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ``n`` rows of each class, sorted; all rows of a class that has fewer.

    A pure function of its arguments.

    Args:
        labels: ``[rows]``, int64.
        n: Rows wanted of each class, at least 1.
        seed: Non-negative.
    """
    if n < 1:
        raise ValueError(f"n is {n}; a class has at least 1 row")
    classes = np.unique(labels).tolist()
    return _drawn(labels, classes, [n] * len(classes), seed)


def _drawn(
    labels: npt.NDArray[np.int64], classes: list[int], shares: list[int], seed: int
) -> npt.NDArray[np.int64]:
    chosen = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        generator = np.random.default_rng(derived_seed(seed, label))
        chosen.append(generator.permutation(members)[:share])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _shares(counts: npt.NDArray[np.int64], n: int) -> list[int]:
    """Split ``n`` over the classes by largest remainder, at least 1 each where ``n`` allows."""
    total = int(counts.sum())
    least = 1 if n >= len(counts) else 0
    shares = np.maximum(counts * n // total, least)
    # Rows by which a class misses its exact share, times `total`: integers
    missing = counts * n - shares * total
    while (difference := n - int(shares.sum())) != 0:
        if difference > 0:
            index, change = int(np.argmax(missing)), 1
        else:
            index, change = int(np.argmin(np.where(shares > least, missing, total * n))), -1
        shares[index] += change
        missing[index] -= change * total
    return shares.tolist()


def held_out(
    text_hashes: npt.NDArray[np.uint64], labels: npt.NDArray[np.int64], fraction: float
) -> npt.NDArray[np.bool_]:
    """Return which rows to hold out for validation or test, ``[rows]``.

    The distinct texts of each class with the smallest hashes are held out. The choice depends only
    on the texts, not on their order or a seed, and equal texts stay on one side. A class with at
    least two distinct texts has some on either side; a single text is not held out.

    Args:
        text_hashes: Equal for equal texts and uniformly distributed, ``[rows]``.
        labels: ``[rows]``, int64.
        fraction: Share of each class's distinct texts to hold out, in (0, 1).
    """
    distinct, first, inverse = np.unique(text_hashes, return_index=True, return_inverse=True)
    label_of = labels[first]
    chosen = np.zeros(len(distinct), dtype=np.bool_)
    for label in np.unique(label_of):
        members = np.flatnonzero(label_of == label)
        share = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[:share]] = True
    return chosen[inverse]
