"""Tables and lines for people; importing it imports rich."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
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
        splits: Where it is still too wide, the columns that do not fit follow in further tables,
            each with the first column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[str] = ()
    spare: Sequence[str] = ()
    elsewhere: str = "--json"
    splits: bool = False

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


def watch(parts: Callable[[], Iterable[str | Table]], seconds: float) -> None:
    """Show parts again every ``seconds`` until the user interrupts, then leave the last ones.

    On a terminal they take its whole screen, as far as they fit; elsewhere they follow one another.
    """
    console, last = Console(), parts()
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves the screen as well
    try:
        if not console.is_terminal:
            while True:
                show(parts(), console)
                console.print()
                sys.stdout.flush()
                time.sleep(seconds)
        with console.screen(hide_cursor=False) as screen:
            while True:
                last = list(parts())
                with console.capture() as shown:
                    show(last, console)
                screen.update(Text.from_ansi(shown.get()))
                time.sleep(seconds)
    except KeyboardInterrupt:
        if console.is_terminal:
            show(last, console)
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _show_table(console: Console, table: Table) -> None:
    places = [*range(len(table.columns))]
    hidden: Sequence[str] = ()
    while len(hidden) < len(table.spare) and not _fits(console, table, places):
        hidden = table.spare[: len(hidden) + 1]
        places = [place for place, name in enumerate(table.columns) if name not in hidden]
    groups = _groups(console, table, places) if table.splits else [places]
    in_pipe = not console.is_terminal
    console.print(_text(table.title), style="bold", soft_wrap=in_pipe)
    for group in groups:
        drawn = _drawn(table, group)
        if in_pipe:
            for line in console.render_lines(drawn, _unbroken(console), pad=False):
                text = "".join(segment.text for segment in line)
                console.print(Text(text.rstrip()), soft_wrap=True)
        else:
            console.print(drawn)
    if hidden:
        text = f"Hidden ({console.width} columns are too few): {', '.join(hidden)}; "
        way_out = f"COLUMNS=200 or {table.elsewhere} shows them"
        console.print(_text(text + way_out), soft_wrap=in_pipe)


def _groups(console: Console, table: Table, places: Sequence[int]) -> list[list[int]]:
    """Return which columns go into each table: the first and as many as fit, at least one."""
    first, *others = places
    groups = [[first]]
    for place in others:
        if len(groups[-1]) > 1 and not _fits(console, table, [*groups[-1], place]):
            groups.append([first])
        groups[-1].append(place)
    return groups


def _fits(console: Console, table: Table, places: Sequence[int]) -> bool:
    measured = Measurement.get(console, _unbroken(console), _drawn(table, places))
    return measured.maximum <= console.width


def _unbroken(console: Console) -> ConsoleOptions:
    return console.options.update(max_width=_WIDE)


def _drawn(table: Table, places: Sequence[int]) -> rich_table.Table:
    drawn = rich_table.Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False,
        show_header=any(table.columns),
    )  # fmt: skip
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
