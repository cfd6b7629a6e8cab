"""Tables and numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 10_000  # in a pipe nothing is cut off
_UNITS = ("B", "kB", "MB", "GB", "TB")


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout; columns whose name ends in a blank are numbers."""
    table = Table(title=_text(title), title_justify="left", title_style="bold")
    for column in columns:
        right = column.endswith(" ")
        table.add_column(
            _text(column.rstrip()), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(_text, row))
    _console().print(table)


def show_values(title: str, values: Mapping[str, object]) -> None:
    """Write names and values, a line each."""
    show_table(title, ("", ""), [(name, str(value)) for name, value in values.items()])


def show_line(line: str) -> None:
    """Write a line to stdout."""
    _console().print(_text(line), soft_wrap=True)


def shown_bytes(count: float) -> str:
    """Return a number of bytes with a unit, three digits long."""
    unit = 0
    while count >= 999.5 and unit + 1 < len(_UNITS):
        count, unit = count / 1000, unit + 1
    return f"{count:.3g} {_UNITS[unit]}"


def shown_age(seconds: float) -> str:
    """Return how long something is ago."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def _text(text: str) -> Text:
    # What stands in a file must not steer the terminal.
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
