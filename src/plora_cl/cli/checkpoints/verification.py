"""``plora-cl checkpoints verify``."""

from __future__ import annotations

from collections.abc import Sequence

from plora_cl.checkpoint.tools.verification import Verdict, Verification, verify
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


def main(argv: Sequence[str]) -> int:
    """Verify what ``argv`` names; return the exit code."""
    parser = command_parser(
        "verify",
        "Read every byte of one or all checkpoints and of every object they need, say what is "
        "damaged, and from which checkpoint a run would be resumed.",
        ["experiments/demo", "experiments/demo@checkpoint_task0_epoch1_batch99.pt"],
        ok="everything is intact",
        found="something is damaged or unreadable",
    )
    add_target(parser, default="; a folder means all of its checkpoints")
    arguments = parser.parse_args(argv)
    return finish(lambda: _verify(locate(arguments.target), as_json=arguments.json))


def _verify(target: Target, *, as_json: bool) -> int:
    entries = None if target.entry is None else [target.entry]
    found = verify(target.store, entries)
    if as_json:
        write_json(
            {
                "directory": str(target.store.directory),
                "intact": found.is_intact,
                "checkpoints": [
                    {"name": v.entry.path.name, "status": _status(v), "problem": v.problem}
                    for v in found.verdicts
                ],
                "objects": found.objects,
                "bytes_read": found.bytes_read,
                "unreferenced": [
                    {"path": str(path), "bytes": size} for path, size in found.unreferenced.items()
                ],
                "resumes_from": _resumes_from(target, found),
            }
        )
    else:
        _show(target, found)
    return OK if found.is_intact else FOUND


def _show(target: Target, found: Verification) -> None:
    from plora_cl.cli.checkpoints.tables import show_line, show_table, shown_bytes

    rows = [(v.entry.path.name, _status(v), v.problem or "") for v in found.verdicts]
    show_table(str(target.store.directory), ("checkpoint", "state", "problem"), rows)
    show_line(f"{shown_bytes(found.bytes_read)} read, {found.objects} objects are intact")
    for path, size in found.unreferenced.items():
        show_line(f"not referred to: {path} ({shown_bytes(size)})")
    if target.entry is None:
        show_line(f"a run would be resumed from: {_resumes_from(target, found) or 'nothing'}")
        if found.stops_resuming is not None:
            show_line(found.stops_resuming)


def _resumes_from(target: Target, found: Verification) -> str | None:
    if target.entry is not None or found.resumes_from is None:
        return None
    return found.resumes_from.path.name


def _status(verdict: Verdict) -> str:
    if verdict.problem is None:
        return "intact"
    return "damaged" if verdict.is_damaged else "unreadable"
