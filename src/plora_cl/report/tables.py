"""Tables of a report: shown on the page next to each figure, and written as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from plora_cl.report.labels import NOTHING


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; one of numbers is aligned to the right."""

    name: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        slug: Name of its file, without ending.
        caption: What it shows, in a sentence.
        columns: The first one names the row.
        rows: A text for each column.
        note: What must be known to read it.
    """

    slug: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def without_empty_columns(self) -> Table:
        """Return it without the columns that have a dash in every row."""
        places = [
            place
            for place in range(len(self.columns))
            if place == 0 or any(row[place] != NOTHING for row in self.rows)
        ]
        return replace(
            self,
            columns=[self.columns[place] for place in places],
            rows=[[row[place] for place in places] for row in self.rows],
        )


def columns(first: str, *numbers: str) -> list[Column]:
    """Return a column of names and columns of numbers."""
    return [Column(first, is_number=False), *map(Column, numbers)]
