"""Tasks that a program passes as pandas frames, `datasets` or lists of records.

Settings hold only the digest of such a task: they have to be written to a file. The data stay in
this process, and another one has to be given them again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plora_cl.data.sources.base import SPLITS, Columns, Row, no_rows, rows_digest
from plora_cl.errors import DataError
from plora_cl.wording import short

FRAMES = "frames"
"""Key of a task entry whose value is the digest of data that a program passed."""

_ROWS_AT_ONCE = 1000
_KINDS = "a pandas.DataFrame, a datasets.Dataset or a list of mappings"
_given: dict[str, Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A task whose splits are in memory, or memory-mapped by `datasets`.

    Attributes:
        name: Name of the task.
        frames: The data of each split.
        columns: Columns that make a row.
        digest: What `content_digest` has to be; empty where it is not known yet.
    """

    name: str
    frames: Mapping[str, Any]
    columns: Columns = field(default_factory=Columns)
    digest: str = ""

    def splits(self) -> tuple[str, ...]:
        """Return the splits that were passed."""
        return tuple(split for split in SPLITS if split in self.frames)

    def place(self, split: str) -> str:
        """Return the name of the task with ``split``."""
        return f"{self.name}[{split}]"

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the checked rows of ``split``; lines are one-based rows.

        Raises:
            DataError: A row cannot be read.
        """
        data, place = self.frames[split], self.place(split)
        names = _class_names(data, self.columns.label) if hasattr(data, "features") else None
        for line, record in enumerate(_records(data, self.columns, place), start=1):
            if names and isinstance(number := record.get(self.columns.label), int):
                record[self.columns.label] = names[number] if 0 <= number < len(names) else None
            yield self.columns.row(record, place, line)

    def require_there(self) -> None:
        """Read the first row of each split.

        Raises:
            DataError: A column is missing, a split is empty, or a row cannot be read.
        """
        for split in self.splits():
            if next(self.rows(split), None) is None:
                raise no_rows(self, split)

    def content_digest(self) -> str:
        """Return the SHA-256 of all rows, of the columns and of the order of the classes.

        Raises:
            DataError: The data are not those that the settings name.
        """
        order = self.class_order()
        parts = [self.columns.text, self.columns.label, order, rows_digest(self)]
        found = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        if self.digest not in ("", found):
            raise DataError(
                f"task {self.name!r}: its data changed after the settings were made; make the "
                "settings again, or pass a copy"
            )
        return found

    def class_order(self) -> tuple[str, ...] | None:
        """Return the classes of a ``ClassLabel`` or categorical column; None if it has none."""
        return _class_names(self.frames["train"], self.columns.label)


def remembered(tasks: object) -> object:
    """Return entries of tasks, with the digest of its data in place of each that was passed whole.

    Raises:
        ValueError: An entry cannot be read as such a task.
        DataError: A row cannot be read.
    """
    if not isinstance(tasks, list | tuple):
        return tasks
    return [_remembered(task) if _is_given(task) else task for task in tasks]


def _is_given(task: object) -> bool:
    return isinstance(task, Mapping) and any(
        split in task and not isinstance(task[split], str) for split in SPLITS
    )


def _remembered(task: Mapping[str, Any]) -> dict[str, Any]:
    name = task.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a task that is passed as data needs a name, found {short(name)}")
    frames = {split: task[split] for split in SPLITS if split in task}
    for split in ("train", "test"):
        if split not in frames:
            raise ValueError(f"the task {name!r} has no {split}; expected {_KINDS}")
    for split, data in frames.items():
        if not _is_known(data):
            kind = type(data).__name__
            raise ValueError(f"{split} of the task {name!r} is a {kind}; expected {_KINDS}")
    rest = {key: value for key, value in task.items() if key not in SPLITS}
    digest = FrameSource(name, frames, _columns(rest)).content_digest()
    _given[digest] = frames
    return {**rest, FRAMES: digest}


def given_again(name: str, digest: str, columns: Columns) -> FrameSource:
    """Return the task whose data were passed to this process.

    Args:
        name: Of the task.
        digest: Of the data.
        columns: Columns that make a row.

    Raises:
        DataError: They were not.
    """
    if digest not in _given:
        raise DataError(
            f"task {name!r}: its texts were passed by a program, and are in no file (SHA-256 "
            f"{digest[:12]}...); pass them again: plora_cl.CLTrainer.from_experiment(FOLDER, "
            f"tasks=[{{'name': {name!r}, 'train': ..., 'test': ...}}, ...])"
        )
    return FrameSource(name, _given[digest], columns, digest)


def _columns(entry: Mapping[str, Any]) -> Columns:
    usual, text = Columns(), entry.get("text_column")
    several = usual.text if text is None else (text,) if isinstance(text, str) else tuple(text)
    return Columns(several, entry.get("label_column", usual.label))


def _is_known(data: object) -> bool:
    if hasattr(data, "itertuples") and hasattr(data, "columns"):
        return True
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return True
    return isinstance(data, list | tuple) and all(isinstance(row, Mapping) for row in data)


def _records(data: Any, columns: Columns, place: str) -> Iterator[dict[str, object]]:
    if isinstance(data, Sequence):
        yield from (dict(row) for row in data)
    elif hasattr(data, "itertuples"):
        columns.check([str(name) for name in data.columns], place)
        for values in zip(*(data[name] for name in columns.names), strict=True):
            yield dict(zip(columns.names, map(_plain, values), strict=True))
    else:
        columns.check(list(data.column_names), place)
        for block in data.select_columns(columns.names).iter(batch_size=_ROWS_AT_ONCE):
            for values in zip(*(block[name] for name in columns.names), strict=True):
                yield dict(zip(columns.names, values, strict=True))


def _plain(value: Any) -> object:
    """Return a cell of a frame as Python has it; None where it is missing."""
    if isinstance(value, str):
        return value
    if value is None or type(value).__name__ == "NAType":
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _class_names(data: Any, label: str) -> tuple[str, ...] | None:
    if hasattr(data, "features"):
        names = getattr(data.features.get(label), "names", None)
    elif hasattr(data, "itertuples") and label in data.columns:
        names = getattr(getattr(data[label], "cat", None), "categories", None)
    else:
        names = None
    return None if names is None else tuple(str(_plain(name)) for name in names)
