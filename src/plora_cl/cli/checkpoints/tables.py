"""Tables and numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 10_000  # in a pipe nothing is cut off
_UNITS = ("B", "kB", "MB", "GB", "TB")


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    spare: Sequence[str] = (),
) -> None:
    """Write a table to stdout; columns whose name ends in a blank are numbers.

    The first column is never broken into lines.

    Args:
        title: Stands above it.
        columns: Their names.
        rows: A text for each column.
        spare: Columns to leave out, one after the other, where the terminal is too narrow; a line
            then says which.
    """
    console, listed = _console(), list(rows)
    wide = console.options.update(max_width=_WIDE)
    table, left_out = _table(title, columns, listed, ()), 0
    while Measurement.get(console, wide, table).maximum > console.width and left_out < len(spare):
        left_out += 1
        table = _table(title, columns, listed, spare[:left_out])
    _print_lines(console, table)
    if left_out:
        names = ", ".join(column.rstrip() for column in spare[:left_out])
        show_line(f"Hidden (terminal too narrow): {names}; --json has them")


def _print_lines(console: Console, table: Table) -> None:
    """Write a table; not to a terminal, without the blanks that fill up its lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


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


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], without: Sequence[str]
) -> Table:
    table = Table(
        title=_text(title), title_justify="left", title_style="bold",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(columns),
    )  # fmt: skip
    places = [place for place, column in enumerate(columns) if column not in without]
    for place in places:
        is_number = columns[place].endswith(" ")
        table.add_column(
            _text(columns[place].rstrip()),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=place == 0 or is_number,
        )
    for row in rows:
        table.add_row(*(_text(row[place]) for place in places))
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def _text(text: str) -> Text:
    # What stands in a file must not steer the terminal.
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
