"""What every source of texts offers, and the checks that every row goes through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from plora_cl.errors import DataError
from plora_cl.wording import LONGEST, half_character, kind_of, nearest, short

SPLITS = ("train", "validation", "test")

LONGEST_TEXT = 1 << 28
"""Characters of one column of a row."""

_MOST_NAMES = 50


class Row(NamedTuple):
    """A labelled text.

    Attributes:
        line: One-based line of the file (or row, where a file has no lines).
        text: Not blank.
        label: Class name, not blank.
    """

    line: int
    text: str
    label: str


class TaskSource(Protocol):
    """A task before tokenisation, read as a stream and any number of times.

    A class that inherits from it has to have `name`, `splits` and `rows`.
    """

    @property
    def name(self) -> str:
        """Name of the task, unique in a stream."""
        ...

    def splits(self) -> tuple[str, ...]:
        """Return which of train, validation and test exist, in this order.

        Raises:
            DataError: The source cannot be reached, or lacks train or test.
        """
        ...

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the rows of ``split``, checked; see `Columns.row`.

        Raises:
            DataError: A row cannot be read; the message names file, line and remedy.
        """
        ...

    def require_there(self) -> None:
        """Check what can be checked at once, without fetching anything; nothing by default.

        Raises:
            DataError: A file, a column or a package is missing or cannot be read.
        """
        return

    def place(self, split: str) -> str:
        """Return the file (or its like) that holds ``split``, for messages."""
        return f"{self.name}[{split}]"

    def content_digest(self) -> str:
        """Return a SHA-256 that depends on texts, labels and how they are read, not on paths.

        By default it is one over all rows.
        """
        return rows_digest(self)

    def class_order(self) -> tuple[str, ...] | None:
        """Return all class names in the source's own order; None, by default, if it has none."""
        return None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns make a row.

    Attributes:
        text: One column, or several whose non-blank texts are joined with a space.
        label: Column of the class.
    """

    text: tuple[str, ...] = ("text",)
    label: str = "label"

    @property
    def names(self) -> list[str]:
        """Return all columns, text first."""
        return [*self.text, self.label]

    def check(self, found: list[str], place: str) -> None:
        """Raise `DataError` unless all columns are among those ``found`` in ``place``."""
        missing = [name for name in self.names if name not in found]
        if missing:
            meant = nearest(missing[0], found)
            hint = f" (did you mean {_listed([meant])}?)" if meant else ""
            raise DataError(
                f"{place}: no column {missing[0]!r}; it has {_listed(found)}{hint}. Name the "
                "right ones with text_column and label_column in the task's entry, for instance "
                f"{self._example(found)}"
            )

    def _example(self, found: list[str]) -> str:
        """Return an entry with the columns that were meant, TEXT or LABEL where nothing tells."""
        spare = [name for name in found if name not in self.names]
        chosen: dict[str, str] = {}
        for wanted in (self.text[0], self.label):
            name = wanted if wanted in found else nearest(wanted, spare)
            if name is not None:
                chosen[wanted] = name
                spare = [other for other in spare if other != name]
        if len(chosen) == 1 == len(spare):  # the only one left
            chosen.setdefault(self.text[0], spare[0])
            chosen.setdefault(self.label, spare[0])
        text = _listed([chosen.get(self.text[0], "TEXT")])
        label = _listed([chosen.get(self.label, "LABEL")])
        return f"{{name: ..., path: ..., text_column: {text}, label_column: {label}}}"

    def row(self, record: Mapping[str, object], place: str, line: int) -> Row:
        """Return the checked row that ``record``, at ``line`` of ``place``, holds."""
        missing = [name for name in self.names if name not in record]
        if missing:
            if line == 1:
                self.check(list(record), f"{place}:{line}")
            raise DataError(
                f"{place}:{line}: this row has no {missing[0]!r}, only "
                f"{_listed(list(record)) or 'nothing'}; add it or remove the row"
            )
        text = self.joined([record[name] for name in self.text], place, line)
        label = record[self.label]
        if label is None or (isinstance(label, str) and not label.strip()):
            raise DataError(
                f"{place}:{line}: empty label in column {self.label!r}; label the row or remove it"
            )
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise DataError(
                f"{place}:{line}: label {short(label)} is {kind_of(label)}; labels are "
                "class names (strings) or integers"
            )
        if half := half_character(f"{text}{label}"):
            raise DataError(
                f"{place}:{line}: half of a surrogate pair, {half!r}, is not text; repair or "
                "remove the row"
            )
        return Row(line, text, str(label))

    def joined(self, values: list[object], place: str, line: int) -> str:
        """Return the checked text of a row whose text columns hold ``values``."""
        parts = []
        for name, value in zip(self.text, values, strict=True):
            if value is not None and not isinstance(value, str):
                raise DataError(
                    f"{place}:{line}: column {name!r} holds a {type(value).__name__}; texts are "
                    "strings: name another one with text_column"
                )
            if value is not None and len(value) > LONGEST_TEXT:
                raise DataError(
                    f"{place}:{line}: a text of {len(value)} characters in column {name!r}; "
                    f"expected at most {LONGEST_TEXT}: cut it to the part that matters"
                )
            if value is not None and value.strip():
                parts.append(value)
        if not parts:
            named = " and ".join(map(repr, self.text))
            raise DataError(
                f"{place}:{line}: empty text in column {named}; fill the row in or remove it"
            )
        return " ".join(parts)


def _listed(names: list[str]) -> str:
    shown = [name if len(name) <= LONGEST else short(name) for name in names[:_MOST_NAMES]]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(shown) + more


def rows_digest(source: TaskSource) -> str:
    """Return a SHA-256 over all rows, for sources whose bytes on disk may vary."""
    digest = hashlib.sha256(json.dumps(source.class_order()).encode())
    for split in source.splits():
        digest.update(f"\n{split}\n".encode())
        for row in source.rows(split):
            digest.update(f"{len(row.text)} {len(row.label)} {row.text}{row.label}".encode())
    return digest.hexdigest()


def no_rows(source: TaskSource, split: str) -> DataError:
    """Return the error that ``split`` is empty."""
    return DataError(f"{source.place(split)}: the {split} split has no rows; add some")
