"""``plora-cl checkpoints gc``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.retention import (
    collect_garbage,
    discard_retired,
    disposable,
    garbage,
)
from plora_cl.checkpoint.store.store import CheckpointStore
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
        "while a checkpoint is unreadable: what it needs is unknown. With --retired, checkpoints "
        "that another branch has left behind go first, unless they are pinned.",
        ["experiments/demo --dry-run", "experiments/demo", "experiments/demo --retired"],
        ok="done",
        found="a checkpoint is damaged, so nothing was removed",
    )
    add_target(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--retired", action="store_true", help="also remove retired checkpoints that are not pinned"
    )
    arguments = parser.parse_args(argv)
    return finish(
        lambda: _clean(
            locate(arguments.target).store,
            retired=arguments.retired,
            dry_run=arguments.dry_run,
            as_json=arguments.json,
        )
    )


def _clean(store: CheckpointStore, *, retired: bool, dry_run: bool, as_json: bool) -> int:
    going = disposable(store) if retired else []
    found = [*going, *garbage(store, without=going)]
    sizes = {path: store.filesystem.size(path) or 0 for path in found}
    removed = found if dry_run else _remove(store, retired=retired)
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


def _remove(store: CheckpointStore, *, retired: bool) -> list[Path]:
    folder = store.directory.parent
    # A run may be about to refer to an object.
    with ExperimentLock.acquire(folder, only_to_remove=True) as lock:
        ours = CheckpointStore(store.directory, lock.filesystem)
        return [*(discard_retired(ours) if retired else ()), *collect_garbage(ours)]
