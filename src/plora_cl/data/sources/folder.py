"""Tasks in a local folder: one file for each split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plora_cl.data.sources.base import SPLITS, Columns, Row, no_rows
from plora_cl.data.sources.readers import READERS, comma_separated
from plora_cl.errors import DataError
from plora_cl.wording import nearest


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder with ``train``, ``test`` and optionally ``validation`` as .jsonl, .csv or .parquet.

    Attributes:
        name: Name of the task.
        folder: Folder of the files.
        columns: Columns that make a row.
        file_names: File name, without suffix, of each split with an unusual name.
    """

    name: str
    folder: Path
    columns: Columns = field(default_factory=Columns)
    file_names: Mapping[str, str] = field(default_factory=dict)

    def splits(self) -> tuple[str, ...]:
        """Return the splits that have a file.

        Raises:
            DataError: There is no such folder, no file for train or test or for a split that
                ``file_names`` lists, or more than one file for a split.
        """
        return tuple(self._files())

    def place(self, split: str) -> str:
        """Return the path of the file that holds ``split``."""
        return str(self._files()[split])

    def content_digest(self) -> str:
        """Return the SHA-256 of the files' bytes and of the columns read from them."""
        parts: list[object] = [self.columns.text, self.columns.label]
        for split, path in self._files().items():
            with self._reading(path), path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            parts.append([split, path.suffix, digest])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the checked rows of ``split``.

        Raises:
            DataError: A row cannot be read.
        """
        path = self._files()[split]
        place = str(path)
        with self._reading(path):
            for line, record in READERS[path.suffix](path, self.columns):
                yield self.columns.row(record, place, line)

    def require_there(self) -> None:
        """Read the first row of each split.

        Raises:
            DataError: A file or a column is missing, a split is empty, or a row cannot be read.
        """
        for split in self.splits():
            if next(self.rows(split), None) is None:
                raise no_rows(self, split)

    def class_order(self) -> None:
        """Return None: files do not order their classes."""

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"task {self.name!r}: {path} cannot be read: {error.strerror or error}"
            ) from error

    def _files(self) -> dict[str, Path]:
        with self._reading(self.folder):
            return self._found()

    def _way_out(self, split: str, stem: str) -> str:
        tabs = self.folder / f"{stem}.tsv"
        if tabs.is_file():
            command = comma_separated(tabs, "\t", self.folder / f"{stem}.csv")
            return f"convert {tabs.name}, for instance with {command}"
        return (
            "add it, or name another file with "
            f"splits: {{{split}: NAME-WITHOUT-SUFFIX}} in the task's entry"
        )

    def _perhaps_meant(self) -> str:
        if "," in str(self.folder):
            return "several tasks are separated by spaces; "
        parent = self.folder.parent
        there = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
        meant = nearest(self.folder.name, there)
        return f"did you mean {parent / meant}? " if meant else ""

    def _found(self) -> dict[str, Path]:
        if not self.folder.is_dir():
            raise DataError(
                f"task {self.name!r}: {self.folder} is not a folder; {self._perhaps_meant()}"
                f"expected one with train, test and, if wanted, validation as {', '.join(READERS)}."
                " A data set on the hub is written {hub: OWNER/NAME}"
            )
        files = {}
        for split in SPLITS:
            stem = self.file_names.get(split, split)
            found = [p for suffix in READERS if (p := self.folder / f"{stem}{suffix}").is_file()]
            if len(found) > 1:
                raise DataError(
                    f"task {self.name!r}: two files for split {split}, "
                    f"{' and '.join(map(str, found))}; keep one of them"
                )
            if found:
                files[split] = found[0]
            elif split != "validation" or split in self.file_names:
                there = sorted(p.name for p in self.folder.iterdir() if p.is_file())
                expected = " or ".join(f"{stem}{suffix}" for suffix in READERS)
                raise DataError(
                    f"task {self.name!r}: no {split} split in {self.folder}: expected {expected}, "
                    f"found {', '.join(there) or 'no file'}; {self._way_out(split, stem)}"
                )
        return files
