"""One pass over a task before tokenisation: checks every row, fixes classes and splits."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from plora_cl.data.sampling import held_out
from plora_cl.data.sources.base import SPLITS, Row, TaskSource, no_rows
from plora_cl.data.text_digest import text_hashes
from plora_cl.errors import DataError
from plora_cl.wording import short

VALIDATION_FRACTION = 0.1
"""Share of the distinct training texts of each class that is held out for validation."""

_INTEGER = re.compile(r"-?[0-9]{1,600}")  # Python makes no numbers of thousands of digits


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of reading all rows of a task.

    Attributes:
        classes: Class names in label order.
        rows: Rows of each split of the source.
        validates: Which training rows become the validation split, ``[rows]``; None if the source
            has one or none is needed.
        duplicates: ``"first/second"`` -> rows of the second split whose text the first also has.
    """

    classes: tuple[str, ...]
    rows: Mapping[str, int]
    validates: npt.NDArray[np.bool_] | None
    duplicates: Mapping[str, int]


def scan(source: TaskSource, *, hold_out: bool = True) -> Scan:
    """Read every row of ``source``.

    Memory: some dozen bytes a row for texts of any length.

    Args:
        source: Source to read.
        hold_out: Hold out training rows for validation if the source has no such split.

    Raises:
        DataError: A row cannot be read or is labelled with a class unknown to training, a split
            is empty, or there is only one class.
    """
    seen: dict[str, int] = {}
    labels = array("q")
    hashes = {"train": _hashes(_counted(source.rows("train"), seen, labels))}
    _check_training(source, seen)
    classes = _ordered(seen, source.class_order())
    for split in source.splits():
        if split != "train":
            hashes[split] = _hashes(_known(source, split, classes))
            if not len(hashes[split]):
                raise no_rows(source, split)
    rows = {split: len(values) for split, values in hashes.items()}
    validates = None
    if "validation" not in hashes and not hold_out:
        hashes["validation"] = np.empty(0, dtype=np.uint64)
    elif "validation" not in hashes:
        validates = _validating(source, hashes["train"], np.frombuffer(labels, dtype=np.int64))
        hashes["validation"] = hashes["train"][validates]
        hashes["train"] = hashes["train"][~validates]
    duplicates = {
        f"{first}/{second}": int(np.isin(hashes[second], hashes[first]).sum())
        for first, second in combinations(SPLITS, 2)
    }
    return Scan(classes, rows, validates, duplicates)


def _hashes(rows: Iterable[Row]) -> npt.NDArray[np.uint64]:
    return text_hashes(row.text for row in rows)


def _counted(rows: Iterable[Row], seen: dict[str, int], labels: array[int]) -> Iterable[Row]:
    for row in rows:
        labels.append(seen.setdefault(row.label, len(seen)))
        yield row


def _known(source: TaskSource, split: str, classes: tuple[str, ...]) -> Iterable[Row]:
    known = frozenset(classes)
    for row in source.rows(split):
        if row.label not in known:
            alike = [name for name in classes if folded(name) == folded(row.label)]
            near = f" (but for white space or case it is {short(alike[0])})" if alike else ""
            shown = ", ".join(map(short, classes[:20])) + (", ..." if len(classes) > 20 else "")
            raise DataError(
                f"{source.place(split)}:{row.line}: label {short(row.label)}{near} does not occur "
                f"in the training split, whose classes are {shown}; correct it, remove the row, or "
                "add examples of it to training"
            )
        yield row


def folded(name: str) -> str:
    """Return a class name in lower case, with single spaces only."""
    return " ".join(name.split()).casefold()


def _check_training(source: TaskSource, seen: Mapping[str, int]) -> None:
    if not seen:
        raise no_rows(source, "train")
    if len(seen) == 1:
        raise DataError(
            f"{source.place('train')}: every row has the label {short(next(iter(seen)))}; "
            "classification needs at least two classes"
        )


def _ordered(seen: Iterable[str], order: tuple[str, ...] | None) -> tuple[str, ...]:
    if order is not None:
        present = frozenset(seen)
        return tuple(name for name in order if name in present)
    if all(_INTEGER.fullmatch(name) for name in seen):
        return tuple(sorted(seen, key=lambda name: (int(name), name)))
    return tuple(sorted(seen))


def _validating(
    source: TaskSource, hashes: npt.NDArray[np.uint64], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    chosen = held_out(hashes, labels, VALIDATION_FRACTION)
    if not chosen.any():
        raise DataError(
            f"{source.place('train')}: no class has two different texts, so that none can be "
            "held out for validation; add examples or a validation split"
        )
    return chosen
