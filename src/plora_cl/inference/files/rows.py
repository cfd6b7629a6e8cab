"""Rows to predict, read from files of any size."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from plora_cl.data.sources.base import Columns
from plora_cl.data.sources.readers import (
    READERS,
    Record,
    Records,
    csv_records,
    jsonl_records,
    read_parquet,
)
from plora_cl.errors import DataError
from plora_cl.wording import nearest

STDIN = Path("/dev/stdin")
PIPED = (".jsonl", ".csv")
"""Types that can be read from a pipe, and written to one."""

_CHARACTERS_AT_ONCE = 8 << 20


class InputRow(NamedTuple):
    """A row to predict.

    Attributes:
        number: One-based; blank lines and the header do not count.
        text: Its text; empty where there is a problem.
        problem: Why it cannot be predicted; None where it can.
    """

    number: int
    text: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class TextColumns:
    """The columns that hold the text; several are joined with a space.

    Attributes:
        text: Their names.
    """

    text: tuple[str, ...] = ("text",)

    @property
    def names(self) -> list[str]:
        """Return all columns."""
        return list(self.text)

    def check(self, found: list[str], place: str) -> None:
        """Raise `DataError` unless all columns are among those ``found`` in ``place``."""
        missing = [name for name in self.text if name not in found]
        if missing:
            meant = nearest(missing[0], found) or next(iter(found), "NAME")
            raise DataError(
                f"{place}: no column {missing[0]!r}; it has {', '.join(found[:50]) or 'none'}. "
                f"Name the one with the text, for instance with --text-column {meant}"
            )

    def row(self, number: int, record: dict[str, object], place: str, line: int) -> InputRow:
        """Return the row of a record, at ``line`` of ``place``."""
        if number == 1:
            self.check(list(record), f"{place}:{line}")
        try:
            text = Columns(self.text).joined([record.get(n) for n in self.text], place, line)
            text.encode()
        except DataError as error:
            return InputRow(number, "", str(error))
        except UnicodeEncodeError:
            problem = f"{place}:{line}: half of a surrogate pair is not text; repair the row"
            return InputRow(number, "", problem)
        return InputRow(number, text, None)


class InputFile:
    """A file of texts, read once as a stream.

    Args:
        path: A file; `STDIN` for the standard input.
        suffix: Its type: ``.jsonl``, ``.csv`` or ``.parquet``.
        columns: Which columns hold the text.
    """

    def __init__(self, path: Path, suffix: str, columns: TextColumns) -> None:
        self._path, self._suffix, self._columns = path, suffix, columns
        self._done: Callable[[], float | None] = lambda: None

    @property
    def done(self) -> float | None:
        """The part of the file that was read, in [0, 1]; None where its size is not known."""
        return self._done()

    def rows(self) -> Iterator[InputRow]:
        """Yield every row.

        Raises:
            DataError: The file is not of its type, or has no such column.
            OSError: It cannot be read.
        """
        place = str(self._path)
        with closing(self._records()) as records:
            for number, (line, record) in enumerate(records, start=1):
                yield self._columns.row(number, record, place, line)

    def _records(self) -> Generator[tuple[int, Record], None, None]:
        if self._suffix == ".parquet":
            yield from self._parquet()
            return
        source = 0 if self._path == STDIN else self._path
        with open(source, "rb", closefd=self._path != STDIN) as file:
            self._measure(file)
            if self._suffix == ".jsonl":
                yield from jsonl_records(file, self._path)
            else:
                yield from csv_records(file, self._path, self._columns)

    def _parquet(self) -> Records:
        import pyarrow.parquet as pq

        records = read_parquet(self._path, self._columns)
        first = next(records, None)  # checks that it is one
        if first is None:
            return
        total, at = pq.read_metadata(self._path).num_rows, 0
        self._done = lambda: at / total
        yield first
        for at, record in records:
            yield at, record

    def _measure(self, file: BufferedReader) -> None:
        size = os.fstat(file.fileno()).st_size
        if size and file.seekable():
            self._done = lambda: 1.0 if file.closed else file.tell() / size


def input_suffix(path: Path) -> str:
    """Return the type of an input file, by its name.

    Raises:
        DataError: It is none that can be read.
    """
    if path.suffix not in READERS:
        raise DataError(
            f"{path}: expected a file of {', '.join(READERS)}; convert it, or pipe it in with "
            "--input - --format jsonl"
        )
    return path.suffix


def blocks(rows: Iterator[InputRow], most: int) -> Iterator[list[InputRow]]:
    """Yield rows in blocks of ``most``, or of fewer where texts are long."""
    block: list[InputRow] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += len(row.text)
        if len(block) == most or characters >= _CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block
