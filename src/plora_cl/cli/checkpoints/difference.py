"""``plora-cl checkpoints diff``."""

from __future__ import annotations

import ast
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from plora_cl.cli.checkpoints.command import RESUMED_FROM, command, locate, target
from plora_cl.cli.checkpoints.contents import named, standing
from plora_cl.cli.command import FOUND, Answer, argument
from plora_cl.cli.exit import OK
from plora_cl.cli.tables import Table
from plora_cl.errors import CorruptCheckpointError
from plora_cl.folders.recorded import task_names

if TYPE_CHECKING:
    from plora_cl.checkpoint.snapshot.snapshot import Snapshot
    from plora_cl.checkpoint.tools.comparison import Comparison, ValueDifference

_SECTIONS = ("cursor", "settings", "identity", "values", "metrics", "environment", "timings")
_LONG = ("values", "timings")
"""Sections whose entries of a component are only counted by default."""


@command(
    "diff",
    "Compare two checkpoints to the bit: positions, settings, scores, and how far each part is "
    "apart. Differences that cannot change the result (the folder of the experiment, the machine, "
    "wall-clock times) are shown and do not count.",
    target(RESUMED_FROM, name="first"),
    target(RESUMED_FROM, name="second"),
    argument("--tensors", action="store_true", help="list every tensor and value that differs"),
    examples=["experiments/demo experiments/other", "experiments/demo experiments/other --json"],
    ok="they are the same",
    found="they differ, or one is damaged",
)
def diff(arguments: Namespace) -> Answer:
    """Compare two checkpoints."""
    targets = locate(arguments.first), locate(arguments.second)
    entries = [target.checkpoint for target in targets]

    from plora_cl.checkpoint.snapshot.loading import load  # takes a second: not needed to refuse
    from plora_cl.checkpoint.tools.comparison import compare

    read = [load(target.store, entry) for target, entry in zip(targets, entries, strict=True)]
    try:
        found = compare(*read)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CorruptCheckpointError(
            f"{entries[0].path} or {entries[1].path} is not what a run saves: {error!r}"
        ) from error
    document = {
        "first": str(entries[0].path),
        "second": str(entries[1].path),
        "same": found.is_same,
        **asdict(found),
    }
    for tensor in document["tensors"]:
        if not math.isfinite(tensor["max_abs"]):  # JSON has no such number
            tensor["max_abs"] = str(tensor["max_abs"])
    shown = _shown(found, [r.snapshot for r in read], tensors=arguments.tensors)
    return Answer(document, shown, OK if found.is_same else FOUND)


def _shown(
    found: Comparison, snapshots: Sequence[Snapshot], *, tensors: bool
) -> Iterator[str | Table]:
    if not found.is_same:
        stand = [
            (which, standing(s.cursor, s.facts.settings), str(s.cursor["step"]))
            for which, s in zip(("first", "second"), snapshots, strict=True)
        ]
        yield Table("Checkpoints", ("", "stands at", "step"), stand, ["step"])
    for name in _SECTIONS:
        changes = getattr(found, name)
        if name == "metrics":
            names = task_names(snapshots[1].facts.settings)
            changes = [_readable(change, names) for change in changes]
        elif name in _LONG and not tensors:
            changes = [change for change in changes if ":" not in change.name]
        if changes:
            rows = [(c.name, c.first or "-", c.second or "-") for c in changes]
            yield Table(name.capitalize(), ("", "first", "second"), rows)
    parts = _parts(found)
    if parts and not found.is_same:
        numbers = ("tensors", "max abs", "other values")
        yield Table("Parts that differ", ("part", *numbers, "only in"), parts, numbers)
        yield "--tensors lists every tensor and value"
    elif parts:  # of the same checkpoints nothing but times can differ
        only = "" if found.environment or found.settings else "Only "
        text = f"{only}wall-clock times differ ({', '.join(part for part, *_ in parts)})"
        yield text[0].upper() + text[1:]
    if tensors and found.tensors:
        listed = [
            (
                *(t.component, t.name, f"{t.max_abs:.6g}"),
                f"{t.different_elements} of {t.elements}",
                str(t.different_bits),
            )
            for t in found.tensors
        ]
        numbers = ("max abs", "elements", "bits")
        yield Table("Tensors", ("component", "tensor", *numbers), listed, numbers)
    yield "The checkpoints are the same" if found.is_same else "The checkpoints differ"


def _parts(found: Comparison) -> list[tuple[str, ...]]:
    """Return, for each part of the state that differs, how much of it does."""
    values = Counter(
        change.name.partition(":")[0]
        for name in _LONG
        for change in getattr(found, name)
        if ":" in change.name
    )
    tensors = Counter(t.component for t in found.tensors)
    largest = dict.fromkeys(tensors, 0.0)
    for tensor in found.tensors:
        if not tensor.max_abs <= largest[tensor.component]:  # also where it is NaN
            largest[tensor.component] = tensor.max_abs
    only = dict.fromkeys(found.only_in_first, "first") | dict.fromkeys(
        found.only_in_second, "second"
    )
    return [
        (
            part,
            str(tensors[part] or "-"),
            f"{largest[part]:.6g}" if part in largest else "-",
            str(values[part] or "-"),
            only.get(part, "-"),
        )
        for part in sorted({*tensors, *values})
    ]


def _readable(change: ValueDifference, names: Sequence[str]) -> ValueDifference:
    """Return the change of a score with tasks by name and scores to three digits."""
    kind, *tasks = change.name.split("/")
    try:
        numbered = [named(names, int(task)) for task in tasks]
        scores = [_scores(text) for text in (change.first, change.second)]
    except (ValueError, TypeError, SyntaxError):
        return change  # of a checkpoint that no run has written
    if kind == "untrained":
        title = f"{numbered[-1]} before training"
    else:
        title = f"{numbered[-1]} after {numbered[0]}" + ", task inferred" * (kind == "routed")
    return replace(change, name=title, first=scores[0], second=scores[1])


def _scores(text: str | None) -> str | None:
    if text is None:
        return None
    accuracy, f1 = ast.literal_eval(text)
    return f"accuracy {accuracy:.3f}, macro-F1 {f1:.3f}"
