"""Tables and lines on stdout, for people; importing it imports rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from plora_cl.cli.checkpoints.command import Table

_WIDE = 10_000  # in a pipe nothing is cut off


def show(parts: Iterable[str | Table]) -> None:
    """Print lines and tables."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    for part in parts:
        if isinstance(part, Table):
            _show_table(console, part)
        else:
            console.print(_text(part), soft_wrap=True)


def _show_table(console: Console, table: Table) -> None:
    wide = console.options.update(max_width=_WIDE)
    drawn, hidden = _drawn(table, ()), 0
    while Measurement.get(console, wide, drawn).maximum > console.width and hidden < len(
        table.spare
    ):
        hidden += 1
        drawn = _drawn(table, table.spare[:hidden])
    if console.is_terminal:
        console.print(drawn)
    else:  # without the blanks that fill up its lines
        with console.capture() as capture:
            console.print(drawn)
        for line in capture.get().splitlines():
            console.print(Text(line.rstrip()), soft_wrap=True)
    if hidden:
        names = ", ".join(column.rstrip() for column in table.spare[:hidden])
        console.print(f"Hidden (terminal too narrow): {names}; --json has them", soft_wrap=True)


def _drawn(table: Table, without: Sequence[str]) -> rich_table.Table:
    drawn = rich_table.Table(
        title=_text(table.title), title_justify="left", title_style="bold",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(table.columns),
    )  # fmt: skip
    places = [place for place, column in enumerate(table.columns) if column not in without]
    for place in places:
        is_number = table.columns[place].endswith(" ")
        drawn.add_column(
            _text(table.columns[place].rstrip()),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=place == 0 or is_number,
        )
    for row in table.rows:
        drawn.add_row(*(_text(row[place]) for place in places))
    return drawn


def _text(text: str) -> Text:
    # The content of a file must not steer the terminal.
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
