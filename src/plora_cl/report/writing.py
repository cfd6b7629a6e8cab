"""Writes a report: the page, its figures and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from plora_cl.checkpoint.store.output_files import write_output
from plora_cl.report.comparison import Member
from plora_cl.report.drawing import Drawing, drawn
from plora_cl.report.labels import clean
from plora_cl.report.latex import latex
from plora_cl.report.output_folder import require_folder, require_libraries
from plora_cl.report.page import page
from plora_cl.report.sections import Section, sections
from plora_cl.report.tables import Table

_MOST_IN_TITLE = 4
_MOST_ROWS = 200
"""Rows of a table up to which it is written for LaTeX: more do not fit on pages."""


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a report.

    Attributes:
        page: ``report.html``.
        figures: SVG and PNG files.
        tables: LaTeX files.
    """

    page: Path
    figures: Sequence[Path]
    tables: Sequence[Path]


def write_report(
    members: Sequence[Member],
    folder: Path,
    *,
    studies: Sequence[str] = (),
    baseline: str | None = None,
) -> Written:
    """Write the report of ``members`` into ``folder``.

    Args:
        members: Runs, at least one.
        folder: Made if it does not exist; the files of an earlier report are replaced.
        studies: Names of the studies that the runs are of.
        baseline: Method that the others are compared with.

    Raises:
        ReportError: A library is missing, or ``folder`` holds other things.
        OutputError: The disk refused a file.
    """
    require_libraries()
    require_folder(folder)
    parts = sections(members, studies, baseline)
    drawings = {chart.slug: drawn(chart) for part in parts for chart in part.charts}
    figures = [path for one in drawings.values() for path in _write_figure(one, folder / "figures")]
    tables = [
        _write_table(table, folder / "tables")
        for part in parts
        for table in _tables(part)
        if len(table.rows) <= _MOST_ROWS
    ]
    text = page(
        _title(members, studies),
        parts,
        drawings,
        version=version("plora-cl"),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_output(folder / "report.html", text.encode())
    return Written(folder / "report.html", figures, tables)


def _title(members: Sequence[Member], studies: Sequence[str]) -> str:
    if studies:
        return ", ".join(map(clean, studies))
    if len(members) == 1:
        return members[0].run.label
    labels = list(dict.fromkeys(clean(one.source.label) for one in members))
    listed = ", ".join(labels[:_MOST_IN_TITLE])
    return listed + " and others" * (len(labels) > _MOST_IN_TITLE)


def _write_figure(drawing: Drawing, folder: Path) -> list[Path]:
    slug = drawing.chart.slug
    write_output(folder / f"{slug}.svg", drawing.svg)
    write_output(folder / f"{slug}.png", drawing.png)
    return [folder / f"{slug}.svg", folder / f"{slug}.png"]


def _tables(part: Section) -> list[Table]:
    return [*part.tables, *(chart.table for chart in part.charts), *part.folded]


def _write_table(table: Table, folder: Path) -> Path:
    path = folder / f"{table.slug}.tex"
    write_output(path, latex(table).encode())
    return path
