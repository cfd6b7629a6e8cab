"""Tasks on the Hugging Face hub, read through `datasets`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from plora_cl.data.sources.base import SPLITS, Columns, Row, rows_digest
from plora_cl.errors import DataError

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub, downloaded once and memory-mapped by `datasets`.

    Attributes:
        name: Name of the task.
        dataset: Hub id such as ``fancyzhx/ag_news``, or a folder that ``load_dataset`` reads.
        columns: Columns that make a row.
        split_names: The data set's name of each split with an unusual name.
    """

    name: str
    dataset: str
    columns: Columns = field(default_factory=Columns)
    split_names: Mapping[str, str] = field(default_factory=dict)

    def splits(self) -> tuple[str, ...]:
        """Return the splits that the data set has.

        Raises:
            DataError: The data set cannot be loaded, or lacks train, test or a split that
                ``split_names`` lists.
        """
        found = []
        for split in SPLITS:
            wanted = self.split_names.get(split, split)
            if wanted in self._loaded:
                found.append(split)
            elif split != "validation" or split in self.split_names:
                raise DataError(
                    f"task {self.name!r}: data set {self.dataset} has no split {wanted!r}; it has "
                    f"{sorted(self._loaded)}: name one with splits: {{{split}: NAME}} in the "
                    "task's entry"
                )
        return tuple(found)

    def require_there(self) -> None:
        """Do nothing: the data set may have to be fetched."""

    def place(self, split: str) -> str:
        """Return the data set and its name of ``split``."""
        return f"{self.dataset}[{self.split_names.get(split, split)}]"

    def content_digest(self) -> str:
        """Return the SHA-256 of all rows."""
        parts = [self.columns.text, self.columns.label, rows_digest(self)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the checked rows of ``split``; class labels are given by name.

        Raises:
            DataError: A row cannot be read.
        """
        place = self.place(split)
        dataset = self._loaded[self.split_names.get(split, split)]
        self.columns.check(dataset.column_names, place)
        names = self.class_order()
        line = 0
        selected = dataset.select_columns(self.columns.names)
        for block in selected.iter(batch_size=_ROWS_AT_ONCE):
            for values in zip(*(block[name] for name in self.columns.names), strict=True):
                line += 1
                record = dict(zip(self.columns.names, values, strict=True))
                if names is not None:
                    record[self.columns.label] = self._class_name(record, names, place, line)
                yield self.columns.row(record, place, line)

    def class_order(self) -> tuple[str, ...] | None:
        """Return the names of the label column's ``ClassLabel``; None if it has none."""
        train = self._loaded[self.split_names.get("train", "train")]
        names = getattr(train.features.get(self.columns.label), "names", None)
        return None if names is None else tuple(names)

    def _class_name(
        self, record: Mapping[str, object], names: tuple[str, ...], place: str, line: int
    ) -> object:
        label = record[self.columns.label]
        if not isinstance(label, int):
            return label
        if not 0 <= label < len(names):
            raise DataError(
                f"{place}:{line}: label {label} is not one of the data set's {len(names)} classes; "
                "the split may be unlabelled: name another one with splits in the task's entry"
            )
        return names[label]

    @cached_property
    def _loaded(self) -> Mapping[str, Any]:
        # Importing `datasets` takes seconds, and most runs read local files.
        import datasets

        try:
            return datasets.load_dataset(self.dataset)
        except MemoryError:
            raise
        except Exception as error:  # readers of a dozen formats raise errors of any type
            if "scripts are no longer supported" in str(error):
                raise DataError(
                    f"task {self.name!r}: data set {self.dataset} is a Python script, and plora-cl "
                    "never runs code that comes with data; choose one that is kept as files, or "
                    "put its texts into a local folder (train and test as .jsonl, .csv or .parquet)"
                ) from error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"task {self.name!r}: cannot load data set {self.dataset} from the hub: {reason}. "
                "Check its name and the network, put the texts into a local folder (train and "
                "test as .jsonl, .csv or .parquet) and name that, or run "
                "--preset quickstart, which needs no hub"
            ) from error
