"""``plora-cl checkpoints gc``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plora_cl.checkpoint.lock import ExperimentLock
from plora_cl.checkpoint.retention import collect_garbage, garbage
from plora_cl.checkpoint.store import CheckpointStore
from plora_cl.cli.checkpoints.command import (
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.exit import OK


def main(argv: Sequence[str]) -> int:
    """Clean up as ``argv`` says; return the exit code."""
    parser = command_parser(
        "gc",
        "Remove objects that no checkpoint refers to and writes that never finished. Nothing goes "
        "while a checkpoint is unreadable: what it needs is unknown.",
        ["experiments/demo --dry-run", "experiments/demo"],
        ok="done",
        found="a checkpoint is damaged, so nothing was removed",
    )
    add_target(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    arguments = parser.parse_args(argv)
    return finish(
        lambda: _clean(
            locate(arguments.target).store, dry_run=arguments.dry_run, as_json=arguments.json
        )
    )


def _clean(store: CheckpointStore, *, dry_run: bool, as_json: bool) -> int:
    sizes = {path: store.filesystem.size(path) or 0 for path in garbage(store)}
    removed = list(sizes) if dry_run else _remove(store)
    total = sum(sizes.get(path, 0) for path in removed)
    if as_json:
        write_json(
            {
                "directory": str(store.directory),
                "dry_run": dry_run,
                "files": [{"path": str(p), "bytes": sizes.get(p, 0)} for p in removed],
                "bytes": total,
            }
        )
        return OK
    from plora_cl.cli.checkpoints.tables import show_line, shown_bytes

    for path in removed:
        show_line(f"{path} ({shown_bytes(sizes.get(path, 0))})")
    verb = "would be removed" if dry_run else "removed"
    show_line(f"{len(removed)} files, {shown_bytes(total)}, {verb}")
    return OK


def _remove(store: CheckpointStore) -> list[Path]:
    with ExperimentLock.acquire(store.directory.parent):  # a run may be about to refer to an object
        return collect_garbage(store)
