"""``plora-cl checkpoints list``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from plora_cl.checkpoint.tools.inventory import Summary, summaries
from plora_cl.cli.checkpoints.command import (
    FOUND,
    Target,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.exit import OK
from plora_cl.counting import counted

_COLUMNS = ("checkpoint", "next", "step ", "loss ", "age ", "unique ", "shared ", "state")
_SPARE = ("shared ", "loss ", "step ", "age ", "unique ")


def main(argv: Sequence[str]) -> int:
    """List checkpoints as ``argv`` says; return the exit code."""
    parser = command_parser(
        "list",
        "Show every checkpoint of an experiment. Manifests are verified and sizes compared; "
        "`verify` reads the rest.",
        ["experiments/demo", "experiments/demo --json"],
        ok="every checkpoint is readable",
        found="at least one is damaged or unreadable",
    )
    add_target(parser)
    arguments = parser.parse_args(argv)
    return finish(lambda: _list(locate(arguments.target), as_json=arguments.json))


def _list(target: Target, *, as_json: bool) -> int:
    found = [s for s in summaries(target.store) if target.entry in (None, s.entry)]
    if as_json:
        rows = [_document(summary) for summary in found]
        write_json({"directory": str(target.store.directory), "checkpoints": rows})
    else:
        _show(target, found)
    return FOUND if any(summary.problem for summary in found) else OK


def _document(summary: Summary) -> dict[str, Any]:
    manifest = summary.manifest
    return {
        "name": summary.entry.path.name,
        "status": _status(summary),
        "problem": summary.problem,
        "cursor": None if manifest is None else dict(manifest.cursor),
        "loss": None if manifest is None else manifest.loss,
        "trained_tasks": None if manifest is None else list(manifest.trained_tasks),
        "written": summary.written,
        "file_bytes": summary.file_bytes,
        "unique_bytes": summary.unique_bytes,
        "shared_bytes": summary.shared_bytes,
        "pinned": summary.is_pinned,
        "final": summary.is_final,
        "retired": summary.is_retired,
        "trajectory": None if manifest is None else manifest.trajectory.to_plain(),
    }


def _show(target: Target, found: Sequence[Summary]) -> None:
    from plora_cl.cli.checkpoints.tables import show_line, show_table, shown_bytes

    if not found:
        show_line(f"No checkpoint in {target.store.directory}")
        return
    show_table(str(target.store.directory), _COLUMNS, map(_row, found), spare=_SPARE)
    files = sum(summary.file_bytes for summary in found)
    refs = {
        ref for summary in found if summary.manifest for ref in summary.manifest.objects.values()
    }
    objects = sum(ref.bytes for ref in refs)
    show_line(
        f"{counted(len(found), 'checkpoint')} in {shown_bytes(files)}, "
        f"{counted(len(refs), 'object')} in {shown_bytes(objects)}"
    )
    for summary in found:
        if summary.problem:
            show_line(f"{_status(summary)}: {summary.problem}")


def _row(summary: Summary) -> tuple[str, ...]:
    from plora_cl.cli.checkpoints.tables import shown_age, shown_bytes

    place, step, loss = "?", "?", "?"
    if summary.manifest is not None:
        cursor = summary.manifest.cursor
        place = f"task {cursor['task']} {cursor['phase']}"
        if cursor["phase"] == "train":
            place += f", epoch {cursor['epoch']}, batch {cursor['batch']}"
        step = str(cursor["step"])
        loss = "-" if summary.manifest.loss is None else f"{summary.manifest.loss:.4f}"
    flags = {
        "pinned": summary.is_pinned,
        "final": summary.is_final,
        "retired": summary.is_retired,
    }
    marks = [_status(summary), *(mark for mark, is_set in flags.items() if is_set)]
    return (
        summary.entry.path.name,
        place,
        step,
        loss,
        shown_age(time.time() - summary.written),
        shown_bytes(summary.unique_bytes),
        shown_bytes(summary.shared_bytes),
        ", ".join(marks),
    )


def _status(summary: Summary) -> str:
    if summary.problem is None:
        return "ok"
    return "damaged" if summary.is_damaged else "unreadable"
