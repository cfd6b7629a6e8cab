"""A subset of the classes of a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plora_cl.data.sources.base import Row, TaskSource
from plora_cl.errors import DataError


@dataclass(frozen=True, slots=True)
class OnlyClasses:
    """The rows of another source with one of the given classes.

    Attributes:
        source: Source of the rows.
        classes: Names of the classes to keep.
    """

    source: TaskSource
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.source.name

    def splits(self) -> tuple[str, ...]:
        """Return the splits that the source has."""
        return self.source.splits()

    def require_there(self) -> None:
        """Check the source.

        Raises:
            DataError: It cannot be read.
        """
        self.source.require_there()

    def place(self, split: str) -> str:
        """Return where the source holds ``split``."""
        return self.source.place(split)

    def content_digest(self) -> str:
        """Return a SHA-256 of the source's content and of the classes."""
        return digest_of_part(self.source.content_digest(), self.classes)

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the rows of ``split`` that have one of the classes.

        Raises:
            DataError: A row cannot be read, or one of the classes does not occur in training.
        """
        missing, others = set(self.classes), set()
        for row in self.source.rows(split):
            if row.label in self.classes:
                missing.discard(row.label)
                yield row
            else:
                others.add(row.label)
        if missing and split == "train":
            raise DataError(
                f"{self.place(split)}: no row has the class {min(missing)!r}, which the task "
                f"{self.name!r} is to consist of; the other classes are {sorted(others)}"
            )

    def class_order(self) -> tuple[str, ...] | None:
        """Return the source's order of these classes, or None if it has none."""
        order = self.source.class_order()
        return None if order is None else tuple(name for name in order if name in self.classes)


def digest_of_part(whole: str, classes: Sequence[str]) -> str:
    """Return the `content_digest` of some classes of a source.

    Args:
        whole: The `content_digest` of the source.
        classes: Names of the classes.
    """
    parts = [whole, sorted(classes)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
