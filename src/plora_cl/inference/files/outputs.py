"""Predictions as lines of JSON, as CSV and as Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

OutputRow: TypeAlias = Mapping[str, Any]
"""``row``, what `Prediction.to_plain` returns (None where there is no prediction), ``problem``."""
Write: TypeAlias = Callable[[Iterable[OutputRow]], object]

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("task", pa.string()),
        ("task_probability", pa.float64()),
        ("abstained", pa.bool_()),
        ("probabilities", pa.map_(pa.string(), pa.float64())),
        ("problem", pa.string()),
    ]
)
_GROUP = 1 << 16  # rows of a row group


def jsonl_writer(out: TextIO) -> Write:
    """Return what writes a line of JSON for each row."""

    def write(rows: Iterable[OutputRow]) -> None:
        out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    return write


def csv_writer(out: TextIO) -> Write:
    """Return what writes CSV with a header line; ``probabilities`` is JSON in it."""
    writer = csv.DictWriter(out, SCHEMA.names, lineterminator="\n")
    writer.writeheader()

    def write(rows: Iterable[OutputRow]) -> None:
        for row in rows:
            writer.writerow({name: _cell(row[name]) for name in SCHEMA.names})

    return write


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


@contextmanager
def _text_file(path: Path, writer: Callable[[TextIO], Write]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as out:
        yield writer(out)


@contextmanager
def _parquet_file(path: Path) -> Iterator[Write]:
    with pq.ParquetWriter(path, SCHEMA) as file:
        waiting: list[OutputRow] = []

        def write(rows: Iterable[OutputRow]) -> None:
            waiting.extend(rows)
            while len(waiting) >= _GROUP:
                flush(waiting[:_GROUP])
                del waiting[:_GROUP]

        def flush(rows: list[OutputRow]) -> None:
            file.write_table(pa.Table.from_pylist([_with_map(row) for row in rows], SCHEMA))

        yield write
        if waiting:
            flush(waiting)


def _with_map(row: OutputRow) -> dict[str, Any]:
    values = row["probabilities"]
    return {**row, "probabilities": None if values is None else list(values.items())}


FILES: Mapping[str, Callable[[Path], AbstractContextManager[Write]]] = {
    ".jsonl": lambda path: _text_file(path, jsonl_writer),
    ".csv": lambda path: _text_file(path, csv_writer),
    ".parquet": _parquet_file,
}
"""By suffix: opens a new file, and yields what writes rows to it."""
PIPES: Mapping[str, Callable[[TextIO], Write]] = {".jsonl": jsonl_writer, ".csv": csv_writer}
"""By type: returns what writes rows to an open stream."""
