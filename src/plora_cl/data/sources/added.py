"""Checks on the task sources of installed packages: what breaks in one is a `DataError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from plora_cl.data.sources.base import LONGEST_TEXT, SPLITS, Row, TaskSource, rows_digest
from plora_cl.errors import DataError, PloraError
from plora_cl.extensions import told
from plora_cl.wording import half_character, short

_OFFERED = ("splits", "rows", "require_there", "place", "content_digest", "class_order")


@dataclass(frozen=True, slots=True)
class AddedSource:
    """A source of an installed package that is held to what `TaskSource` says.

    Attributes:
        source: What the package returned.
        name: Name of the task, from its entry.
        origin: The package and its entry point, for messages.
    """

    source: Any
    name: str
    origin: str

    @classmethod
    def opened(cls, opener: Callable[[Any], object], origin: str, declared: Any) -> AddedSource:
        """Return the source that ``opener`` of a package returns for an entry.

        Raises:
            DataError: It raises an error, or returns something else.
        """
        with _explained(declared.name, origin, "cannot be opened"):
            source = opener(declared)
            missing = [name for name in ("name", *_OFFERED) if not hasattr(source, name)]
            named = getattr(source, "name", None)
        found = cls(source, declared.name, origin)
        if missing:
            raise found._error(
                f"{short(source)} has no {', '.join(missing)}; expected a subclass of "
                "plora_cl.data.sources.base.TaskSource"
            )
        if named != declared.name:
            raise found._error(
                f"its source has the name {short(named)}; expected the one in declared.name"
            )
        return found

    def splits(self) -> tuple[str, ...]:
        """Return the splits that the source has.

        Raises:
            DataError: They are not train, test and perhaps validation.
        """
        with self._explained("splits()"):
            splits = tuple(self.source.splits())
        names = [split for split in SPLITS if split in splits]
        if len(names) < len(splits) or not {"train", "test"} <= {*names}:
            raise self._error(
                f"splits() returned {short(splits)}; expected train and test, and validation if "
                "there is one"
            )
        return splits

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the rows of ``split``.

        Raises:
            DataError: A row is not one, or cannot be read.
        """
        with self._explained(f"rows({split!r})"):
            for number, row in enumerate(self.source.rows(split), start=1):
                if not isinstance(row, Row):
                    raise self._error(
                        f"rows({split!r}): item {number} is {short(row)}; expected a "
                        "plora_cl.data.sources.base.Row"
                    )
                for part, value in (("text", row.text), ("label", row.label)):
                    if problem := _problem_of_text(value):
                        raise self._error(f"rows({split!r}): the {part} of row {number} {problem}")
                yield row

    def require_there(self) -> None:
        """Let the source check what can be checked at once.

        Raises:
            DataError: Something is missing.
        """
        with self._explained("require_there()"):
            self.source.require_there()

    def place(self, split: str) -> str:
        """Return what the source says holds ``split``.

        Raises:
            DataError: It raises an error.
        """
        with self._explained(f"place({split!r})"):
            return str(self.source.place(split))

    def content_digest(self) -> str:
        """Return the digest of the source, which by default is one over its checked rows.

        Raises:
            DataError: It is not text, or cannot be computed.
        """
        if getattr(type(self.source), "content_digest", None) is TaskSource.content_digest:
            return rows_digest(self)
        with self._explained("content_digest()"):
            digest = self.source.content_digest()
        if not isinstance(digest, str) or not digest:
            raise self._error(f"content_digest() returned {short(digest)}; expected text")
        return digest

    def class_order(self) -> tuple[str, ...] | None:
        """Return the order of the classes, or None if the source has none.

        Raises:
            DataError: It is not one of distinct names.
        """
        with self._explained("class_order()"):
            order = self.source.class_order()
            names = None if order is None else tuple(order)
        if names is not None and (
            not all(isinstance(name, str) for name in names) or len({*names}) < len(names)
        ):
            raise self._error(
                f"class_order() returned {short(order)}; expected distinct names of classes, or "
                "None"
            )
        return names

    def _explained(self, what: str) -> Any:
        return _explained(self.name, self.origin, what)

    def _error(self, text: str) -> DataError:
        return DataError(f"task {self.name!r}: {self.origin}: {text}")


@contextmanager
def _explained(name: str, origin: str, what: str) -> Iterator[None]:
    try:
        yield
    except (PloraError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # code of another package raises anything
        raise DataError(f"task {name!r}: {origin}: {what}: {told(error)}") from error


def _problem_of_text(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is {short(value)}, a {type(value).__name__}; expected text"
    if not value.strip():
        return "is blank; fill it in or leave the row out"
    if len(value) > LONGEST_TEXT:
        return f"has {len(value)} characters; expected at most {LONGEST_TEXT}"
    half = half_character(value)
    return half and f"has {half!r}, half of a surrogate pair; expected text"
