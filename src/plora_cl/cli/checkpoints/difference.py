"""``plora-cl checkpoints diff``."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plora_cl.cli.checkpoints.command import (
    FOUND,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.checkpoints.contents import named, standing, task_names
from plora_cl.cli.exit import OK
from plora_cl.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from plora_cl.checkpoint.snapshot.snapshot import Snapshot
    from plora_cl.checkpoint.tools.comparison import Change, Comparison

_SECTIONS = ("cursor", "settings", "identity", "values", "metrics", "environment", "timings")
_LONG = ("values", "timings")
"""Sections whose entries, but for those of no component, are only counted by default."""


def main(argv: Sequence[str]) -> int:
    """Compare the checkpoints that ``argv`` names; return the exit code."""
    parser = command_parser(
        "diff",
        "Compare two checkpoints to the bit: where they stand, settings, scores, and how far each "
        "part is apart. What decides nothing about the result (where the experiment is, the "
        "machine, wall-clock times) is shown and does not count.",
        ["experiments/demo experiments/other", "experiments/demo experiments/other --json"],
        ok="they are the same",
        found="they differ, or one is damaged",
    )
    stands = "; a folder stands for the one it would be resumed from"
    add_target(parser, "first", default=stands)
    add_target(parser, "second", default=stands)
    parser.add_argument(
        "--tensors", action="store_true", help="list every tensor and value that differs, too"
    )
    arguments = parser.parse_args(argv)
    return finish(
        lambda: _diff(
            arguments.first, arguments.second, as_json=arguments.json, tensors=arguments.tensors
        )
    )


def _diff(first: str, second: str, *, as_json: bool, tensors: bool) -> int:
    one, two = locate(first), locate(second)
    entries = one.checkpoint, two.checkpoint

    from plora_cl.checkpoint.snapshot.loading import load
    from plora_cl.checkpoint.tools.comparison import compare  # takes a second: not needed to refuse

    read = [load(target.store, entry) for target, entry in zip((one, two), entries, strict=True)]
    try:
        found = compare(*read)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CorruptCheckpointError(
            f"{entries[0].path} or {entries[1].path} is not what a run saves: {error!r}"
        ) from error
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
        _show(found, [resumable.snapshot for resumable in read], tensors=tensors)
    return OK if found.is_same else FOUND


def _document(changes: Sequence[Change]) -> list[dict[str, Any]]:
    return [{"name": c.name, "first": c.before, "second": c.after} for c in changes]


def _show(found: Comparison, snapshots: Sequence[Snapshot], *, tensors: bool) -> None:
    from plora_cl.cli.checkpoints.tables import show_line, show_table

    if not found.is_same:
        stand = [(standing(s.cursor, s.settings), str(s.cursor["step"])) for s in snapshots]
        labelled = [
            (which, *texts) for which, texts in zip(("first", "second"), stand, strict=True)
        ]
        show_table("Checkpoints", ("", "stands at", "step "), labelled)
    for name in _SECTIONS:
        changes = getattr(found, name)
        if name == "metrics":
            names = task_names(snapshots[1].settings)
            changes = [_readable(change, names) for change in changes]
        elif name in _LONG and not tensors:
            changes = [change for change in changes if ":" not in change.name]
        if changes:
            rows = [(c.name, c.before or "-", c.after or "-") for c in changes]
            show_table(name.capitalize(), ("", "first", "second"), rows)
    if found.tensors or any(getattr(found, name) for name in _LONG):
        _show_parts(found)
    if tensors and found.tensors:
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


def _show_parts(found: Comparison) -> None:
    """Show for each part of the state how much of it differs."""
    from plora_cl.cli.checkpoints.tables import show_line, show_table

    tensors, values = Counter(t.component for t in found.tensors), Counter[str]()
    for name in _LONG:
        values.update(
            change.name.partition(":")[0] for change in getattr(found, name) if ":" in change.name
        )
    parts = sorted({*tensors, *values})
    if not parts:
        return
    largest = dict.fromkeys(parts, 0.0)
    for tensor in found.tensors:
        if not tensor.largest <= largest[tensor.component]:  # also where it is NaN
            largest[tensor.component] = tensor.largest
    show_table(
        "Parts that differ",
        ("part", "tensors ", "max abs ", "other values "),
        [
            (
                part,
                str(tensors[part] or "-"),
                f"{largest[part]:.6g}" if tensors[part] else "-",
                str(values[part] or "-"),
            )
            for part in parts
        ],
    )
    show_line("--tensors lists every tensor and value")


def _readable(change: Change, names: Sequence[str]) -> Change:
    """Return a change of a score with tasks by name and scores to three digits."""
    kind, *tasks = change.name.split("/")
    try:
        numbered = [named(names, int(task)) for task in tasks]
        scores = [_scores(text) for text in (change.before, change.after)]
    except (ValueError, TypeError, SyntaxError):
        return change  # as it stands in a checkpoint that no run has written
    if kind == "untrained":
        title = f"{numbered[-1]} before training"
    else:
        title = f"{numbered[-1]} after {numbered[0]}" + ", task inferred" * (kind == "routed")
    return replace(change, name=title, before=scores[0], after=scores[1])


def _scores(text: str | None) -> str | None:
    if text is None:
        return None
    accuracy, f1 = ast.literal_eval(text)
    return f"accuracy {accuracy:.3f}, macro-F1 {f1:.3f}"
