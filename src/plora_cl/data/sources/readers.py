"""Streams of records from JSON Lines, CSV and Parquet files."""

from __future__ import annotations

import codecs
import csv
import json
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from plora_cl.errors import DataError

Record: TypeAlias = dict[str, object]
Records: TypeAlias = Iterator[tuple[int, Record]]


class Wanted(Protocol):
    """The columns that a reader has to find, such as `plora_cl.data.sources.base.Columns`."""

    @property
    def names(self) -> list[str]:
        """Their names."""
        ...

    def check(self, found: list[str], place: str) -> None:
        """Raise `DataError` unless all of them are among those ``found`` in ``place``."""
        ...


Reader: TypeAlias = Callable[[Path, Wanted], Records]

_LARGEST_FIELD = 2**31 - 1
_LONGEST_LINE = 1 << 28
_PARQUET_ROWS = 64  # a small file may hold large rows: each may repeat one dictionary entry
_HEAD = 64
_WIDE_MARKS = (
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),  # first: longer
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_jsonl(
    path: Path,
    columns: Wanted,  # noqa: ARG001 - checked row by row: lines may differ
) -> Records:
    """Yield ``(line, object)`` of a JSON Lines file; blank lines are skipped."""
    with path.open("rb") as file:
        yield from jsonl_records(file, path)


def jsonl_records(file: BufferedReader, path: Path) -> Records:
    """Yield what `read_jsonl` does, of an open file; ``path`` is for messages."""
    _require_bytes_of_utf8(file, path)
    bounded = iter(partial(file.readline, _LONGEST_LINE + 1), b"")
    for number, raw in enumerate(bounded, start=1):
        if len(raw) > _LONGEST_LINE:
            raise DataError(
                f"{path}:{number}: a line of more than {_LONGEST_LINE} bytes; each line is one "
                "text with its label"
            )
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(path, number, error) from None
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error}); each line is one object such as "
                '{"text": "...", "label": "..."}'
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{path}:{number}: a JSON {type(record).__name__} instead of an object such as "
                '{"text": "...", "label": "..."}'
            )
        yield number, record


def read_csv(path: Path, columns: Wanted, delimiter: str = ",") -> Records:
    """Yield ``(line, fields by column)`` of a CSV file with a header line.

    Quoted fields may span lines; the line of a row is its first.
    """
    with path.open("rb") as file:
        yield from csv_records(file, path, columns, delimiter)


def csv_records(file: BufferedReader, path: Path, columns: Wanted, delimiter: str = ",") -> Records:
    """Yield what `read_csv` does, of an open file, which is closed; ``path`` is for messages."""
    csv.field_size_limit(_LARGEST_FIELD)
    _require_bytes_of_utf8(file, path)
    with TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        line = 1
        try:
            for fields in reader:
                if fields and header is None:
                    header = fields
                    _require_delimiter(header, delimiter, path)
                    _check_header(header, columns, path)
                elif fields and header is not None:
                    yield line, _csv_record(header, fields, path, line)
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{line}: not CSV ({error}); quote fields that hold commas, quotes or line "
                "breaks, and double the quotes in them"
            ) from None
        except UnicodeDecodeError as error:
            raise _first_not_utf8(path, line, error) from None


def read_parquet(path: Path, columns: Wanted) -> Records:
    """Yield ``(one-based row, values by column)`` of a Parquet file, only the columns needed."""
    try:
        with pq.ParquetFile(path) as file:
            columns.check(list(file.schema_arrow.names), str(path))
            first = 1
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns.names):
                yield from _parquet_records(batch, path, first)
                first += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a Parquet file ({reason}); write it again") from None


READERS: dict[str, Reader] = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
"""Reader of each file type, by suffix."""


def _require_bytes_of_utf8(file: BufferedReader, path: Path) -> None:
    """Refuse a file in a wider encoding, which may decode as UTF-8 without an error.

    Raises:
        DataError: It begins with another byte order mark, or with zero bytes between letters.
    """
    head = file.peek(_HEAD)[:_HEAD]
    marked = next((name for mark, name in _WIDE_MARKS if head.startswith(mark)), None)
    if marked is not None:
        shown = f"it begins with the byte order mark {head[:2].hex(' ')}"
    elif head.count(0) > 0 and head.count(0) >= len(head) // 4:
        marked = "utf-16le" if head.find(0) % 2 else "utf-16be"
        shown = "every other byte is zero"
    else:
        return
    raise DataError(
        f"{path}: {marked.upper()} instead of UTF-8 ({shown}); convert it, for instance with "
        f"{_recoding(path, marked)}"
    )


def _recoding(path: Path, encoding: str) -> str:
    """Return the command that converts a file to UTF-8 in place."""
    file, new = shlex.quote(str(path)), f"utf8{path.suffix}"
    return f"iconv -f {encoding} -t utf-8 {file} > {new} && mv {new} {file}"


def comma_separated(path: Path, delimiter: str, target: Path) -> str:
    """Return the command that writes the rows of ``path`` to ``target``, with commas."""
    typed = "\\t" if delimiter == "\t" else delimiter
    return (
        'python3 -c "import csv, sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, '
        f"delimiter='{typed}'))\" < {shlex.quote(str(path))} > commas.csv && mv commas.csv "
        f"{shlex.quote(str(target))}"
    )


def _require_delimiter(header: list[str], expected: str, path: Path) -> None:
    """Refuse a header with one column if its names are separated by another delimiter."""
    if len(header) > 1:
        return
    (line,) = header
    other = max(_OTHER_DELIMITERS, key=line.count)
    if other not in line or other == expected:
        return
    raise DataError(
        f"{path}:1: columns are separated by {_OTHER_DELIMITERS[other]}, expected commas; the "
        f"header is then {','.join(line.split(other))}. Convert it, for instance with "
        f"{comma_separated(path, other, path)}"
    )


def _check_header(header: list[str], columns: Wanted, path: Path) -> None:
    columns.check(header, f"{path}:1")
    twice = [name for name in columns.names if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: two columns are named {twice[0]!r}; rename one of them")


def _csv_record(header: list[str], fields: list[str], path: Path, line: int) -> Record:
    if len(fields) != len(header):
        raise DataError(
            f"{path}:{line}: {len(fields)} fields under a header of {len(header)}; quote fields "
            "that hold commas or line breaks"
        )
    return dict(zip(header, fields, strict=True))


def _parquet_records(batch: pa.RecordBatch, path: Path, first: int) -> Iterator[tuple[int, Record]]:
    for row in range(first, first + batch.num_rows):
        try:
            yield row, {name: batch[name][row - first].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            raise _not_utf8(path, row, error) from None
        except (OverflowError, ValueError) as error:  # a date after the year 9999, for instance
            reason = " ".join(str(error).split())
            raise DataError(
                f"{path}:{row}: a value that Python cannot hold ({reason}); texts "
                "are strings, and labels class names (strings) or integers"
            ) from None


def _first_not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    if not path.is_file():  # a pipe, which is read once: the bytes are from this line on
        return _not_utf8(path, line, error)
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                raw.decode()
            except UnicodeDecodeError as found:
                return _not_utf8(path, number, found)
    return DataError(f"{path}: changed while it was read; try again")


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); convert the file, for instance with "
        f"{_recoding(path, 'latin1')}"
    )
