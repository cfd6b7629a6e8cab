"""``plora-cl checkpoints list``."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from plora_cl.checkpoint.tools.inventory import Summary, summaries
from plora_cl.cli.checkpoints.command import Target, command, locate, target
from plora_cl.cli.checkpoints.contents import problems, status, steps_done
from plora_cl.cli.command import FOUND, Answer
from plora_cl.cli.exit import OK
from plora_cl.cli.tables import Table
from plora_cl.training.reporting import STANDS
from plora_cl.wording import counted, shown_age, shown_bytes

_NUMBERS = ("step", "loss", "age", "unique", "shared")
_SPARE = ("shared", "stands at", "loss", "step", "age", "unique")


@command(
    "list",
    "Show every checkpoint of an experiment. Only manifests are read and sizes compared: `verify` "
    "finds damage in the rest.",
    target(),
    examples=["experiments/demo", "experiments/demo --json"],
    ok="every manifest is intact and every file has its size; the rest was not verified",
    found="a manifest is damaged, or a file is missing, unreadable or of another size",
)
def show_list(arguments: Namespace) -> Answer:
    """List checkpoints."""
    asked = locate(arguments.target)
    found = [s for s in summaries(asked.store) if asked.entry in (None, s.entry)]
    document = {"directory": str(asked.store.directory), "checkpoints": [*map(_document, found)]}
    is_damaged = any(summary.problem for summary in found)
    return Answer(document, _shown(asked, found), FOUND if is_damaged else OK)


def _document(summary: Summary) -> dict[str, Any]:
    manifest = summary.manifest
    return {
        "name": summary.entry.path.name,
        "status": status(summary, "not verified"),
        "problem": summary.problem,
        "cursor": None if manifest is None else dict(manifest.cursor),
        "loss": None if manifest is None else manifest.loss,
        "trained_tasks": None if manifest is None else list(manifest.trained_tasks),
        "written": summary.status.st_mtime,
        "file_bytes": summary.status.st_size,
        "unique_bytes": summary.unique_bytes,
        "shared_bytes": summary.shared_bytes,
        **_flags(summary),
        "trajectory": None if manifest is None else manifest.trajectory.to_plain(),
    }


def _flags(summary: Summary) -> dict[str, bool]:
    return {
        "pinned": summary.is_pinned,
        "final": summary.is_final,
        "retired": summary.is_retired,
    }


def _shown(asked: Target, found: Sequence[Summary]) -> Iterator[str | Table]:
    if not found:
        yield f"No checkpoint in {asked.store.directory}"
        return
    columns = ("checkpoint", "stands at", *_NUMBERS, "state")
    yield Table(str(asked.store.directory), columns, [*map(_row, found)], _NUMBERS, _SPARE)
    files = sum(summary.status.st_size for summary in found)
    refs = {ref for s in found if s.manifest for ref in s.manifest.objects.values()}
    yield (
        f"{counted(len(found), 'checkpoint')} in {shown_bytes(files)}, "
        f"{counted(len(refs), 'object')} in {shown_bytes(sum(ref.bytes for ref in refs))}; "
        "`plora-cl checkpoints verify` reads every byte"
    )
    yield from problems(found)


def _row(summary: Summary) -> tuple[str, ...]:
    place, step, loss = "?", "?", "?"
    if summary.manifest is not None:
        cursor = summary.manifest.cursor
        if summary.manifest.settings:
            place = f"task {cursor['task'] + 1} {STANDS.get(cursor['phase'], cursor['phase'])}"
        else:
            place = steps_done(cursor)
        step = str(cursor["step"])
        loss = "-" if summary.manifest.loss is None else f"{summary.manifest.loss:.4f}"
    marks = [status(summary, ""), *(name for name, is_set in _flags(summary).items() if is_set)]
    return (
        *(summary.entry.path.name, place, step, loss),
        shown_age(time.time() - summary.status.st_mtime),
        shown_bytes(summary.unique_bytes),
        shown_bytes(summary.shared_bytes),
        ", ".join(filter(None, marks)) or "-",
    )
