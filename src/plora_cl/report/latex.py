"""Tables for LaTeX with the package booktabs."""

from __future__ import annotations

import re

from plora_cl.report.labels import MINUS, NOTHING
from plora_cl.report.tables import Table

_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",  # not a dash where two follow each other
    "[": "{[}",  # not the optional argument of the line before
    "]": "{]}",
    "*": "{*}",  # nor its starred form
    "±": r"$\pm$",
    MINUS: r"$-$",
    NOTHING: "--",
    "→": r"$\to$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{REPLACEMENT CHARACTER}": "?",
}
_FOUND = re.compile("|".join(map(re.escape, _SPECIAL)))


def escaped(text: str) -> str:
    """Return ``text`` so that LaTeX prints it as it is."""
    return _FOUND.sub(lambda found: _SPECIAL[found[0]], text)


def latex(table: Table) -> str:
    """Return a ``tabular`` that needs the package booktabs, and fonts in T1 encoding."""
    alignment = "".join("r" if column.is_number else "l" for column in table.columns)
    lines = [
        f"% {_comment(table.caption)}",
        r"% needs \usepackage[T1]{fontenc} and \usepackage{booktabs}",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        _row([column.name for column in table.columns]),
        r"\midrule",
        *map(_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *([f"% {_comment(table.note)}"] if table.note else ()),
    ]
    return "\n".join(lines) + "\n"


def _row(cells: object) -> str:
    assert isinstance(cells, list | tuple)
    return " & ".join(map(escaped, cells)) + r" \\"


def _comment(text: str) -> str:
    return " ".join(text.split())
