"""Tables and lines for people; importing it imports rich."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

_WIDE = 10_000  # characters: in a pipe no line is broken


@dataclass(frozen=True, slots=True)
class Table:
    """A table for people.

    Attributes:
        title: The line above it.
        columns: Their names.
        rows: One text for each column. The first column is never broken into lines.
        numbers: Names of columns of numbers, which are never broken either.
        spare: Columns to hide, one after the other, while the table is wider than the terminal. A
            pipe counts as 80 columns wide, or as ``COLUMNS`` of the environment.
        elsewhere: What else shows hidden columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[str] = ()
    spare: Sequence[str] = ()
    elsewhere: str = "--json"

    @classmethod
    def of_values(cls, title: str, values: Mapping[str, object]) -> Table:
        """Return a table of names and values."""
        return cls(title, ("", ""), [(name, str(value)) for name, value in values.items()])


def show(parts: Iterable[str | Table], console: Console | None = None) -> None:
    """Print lines and tables on ``console``, by default on stdout."""
    console = console or Console()
    for place, part in enumerate(parts):
        if isinstance(part, Table):
            if place:
                console.print()
            _show_table(console, part)
        else:
            console.print(_text(part), soft_wrap=True)


def _show_table(console: Console, table: Table) -> None:
    wide = console.options.update(max_width=_WIDE)
    measured = partial(Measurement.get, console, wide)
    drawn, hidden = _drawn(table), 0
    while hidden < len(table.spare) and measured(drawn).maximum > console.width:
        hidden += 1
        drawn = _drawn(table, without=table.spare[:hidden])
    in_pipe = not console.is_terminal
    console.print(_text(table.title), style="bold", soft_wrap=in_pipe)
    if in_pipe:
        for line in console.render_lines(drawn, wide, pad=False):
            text = "".join(segment.text for segment in line)
            console.print(Text(text.rstrip()), soft_wrap=True)
    else:
        console.print(drawn)
    if hidden:
        names = ", ".join(table.spare[:hidden])
        text = f"Hidden ({console.width} columns are too few): {names}; "
        way_out = f"COLUMNS=200 or {table.elsewhere} shows them"
        console.print(_text(text + way_out), soft_wrap=in_pipe)


def _drawn(table: Table, without: Collection[str] = ()) -> rich_table.Table:
    drawn = rich_table.Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False,
        show_header=any(table.columns),
    )  # fmt: skip
    places = [place for place, name in enumerate(table.columns) if name not in without]
    for place in places:
        name = table.columns[place]
        drawn.add_column(
            _text(name),
            justify="right" if name in table.numbers else "left",
            overflow="fold",
            no_wrap=place == 0 or name in table.numbers,
        )
    for row in table.rows:
        drawn.add_row(*(_text(row[place]) for place in places))
    return drawn


def _text(text: str) -> Text:
    # The content of a file must not steer the terminal.
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
