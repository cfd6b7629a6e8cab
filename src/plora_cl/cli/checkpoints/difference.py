"""``plora-cl checkpoints diff``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plora_cl.cli.checkpoints.command import (
    FOUND,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.exit import OK

if TYPE_CHECKING:
    from plora_cl.checkpoint.comparison import Change, Comparison

_SECTIONS = ("cursor", "settings", "identity", "values", "metrics", "environment", "timings")


def main(argv: Sequence[str]) -> int:
    """Compare the checkpoints that ``argv`` names; return the exit code."""
    parser = command_parser(
        "diff",
        "Compare two checkpoints to the bit. What decides nothing about the result (where the "
        "experiment is, the machine, wall-clock times) is shown and does not count.",
        ["experiments/demo experiments/other", "experiments/demo experiments/other --json"],
        ok="they are the same",
        found="they differ, or one is damaged",
    )
    stands = "; a folder stands for its newest checkpoint"
    add_target(parser, "first", default=stands)
    add_target(parser, "second", default=stands)
    arguments = parser.parse_args(argv)
    return finish(lambda: _diff(arguments.first, arguments.second, as_json=arguments.json))


def _diff(first: str, second: str, *, as_json: bool) -> int:
    one, two = locate(first), locate(second)
    entries = one.checkpoint, two.checkpoint

    from plora_cl.checkpoint.comparison import compare  # takes a second: not needed to refuse
    from plora_cl.checkpoint.resume import load

    found = compare(load(one.store, entries[0]), load(two.store, entries[1]))
    if as_json:
        write_json(
            {
                "first": str(entries[0].path),
                "second": str(entries[1].path),
                "same": found.is_same,
                **{name: _document(getattr(found, name)) for name in _SECTIONS},
                "tensors": [
                    {
                        "component": t.component,
                        "name": t.name,
                        "elements": t.elements,
                        "different_elements": t.different_elements,
                        "different_bits": t.different_bits,
                        "max_abs": t.largest if math.isfinite(t.largest) else str(t.largest),
                    }
                    for t in found.tensors
                ],
            }
        )
    else:
        _show(found)
    return OK if found.is_same else FOUND


def _document(changes: Sequence[Change]) -> list[dict[str, Any]]:
    return [{"name": c.name, "first": c.before, "second": c.after} for c in changes]


def _show(found: Comparison) -> None:
    from plora_cl.cli.checkpoints.tables import show_line, show_table

    for name in _SECTIONS:
        changes = getattr(found, name)
        if changes:
            rows = [(c.name, c.before or "-", c.after or "-") for c in changes]
            show_table(name.capitalize(), ("", "first", "second"), rows)
    if found.tensors:
        show_table(
            "Tensors",
            ("component", "tensor", "max abs ", "elements ", "bits "),
            [
                (
                    t.component,
                    t.name,
                    f"{t.largest:.6g}",
                    f"{t.different_elements} of {t.elements}",
                    str(t.different_bits),
                )
                for t in found.tensors
            ],
        )
    show_line("The checkpoints are the same" if found.is_same else "The checkpoints differ")
