"""``plora-cl checkpoints gc``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.retention import (
    collect_garbage,
    discard_retired,
    disposable,
    garbage,
)
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.checkpoints.command import command, locate, target
from plora_cl.cli.command import Answer, argument
from plora_cl.wording import counted, shown_bytes


@command(
    "gc",
    "Remove objects that no checkpoint refers to, and unfinished writes. Nothing is removed while "
    "a checkpoint is unreadable: what it needs is unknown. With --retired, checkpoints that were "
    "left behind on another branch go first, unless they are pinned.",
    target(),
    argument("--dry-run", action="store_true", help="only list what would be removed"),
    argument("--retired", action="store_true", help="also remove retired, unpinned checkpoints"),
    examples=["experiments/demo --dry-run", "experiments/demo", "experiments/demo --retired"],
    found="a checkpoint is damaged, so nothing was removed",
)
def gc(arguments: Namespace) -> Answer:
    """Remove what no checkpoint needs."""
    store = locate(arguments.target).store
    going = disposable(store) if arguments.retired else []
    found = [*going, *garbage(store, without=going)]
    sizes = {path: store.size(path) or 0 for path in found}
    removed = found if arguments.dry_run else _remove(store, retired=arguments.retired)
    files = [(path, sizes.get(path, 0)) for path in removed]
    total = sum(size for _, size in files)
    verb = "would be removed" if arguments.dry_run else "removed"
    return Answer(
        {
            "directory": str(store.directory),
            "dry_run": arguments.dry_run,
            "files": [{"path": str(path), "bytes": size} for path, size in files],
            "bytes": total,
        },
        [
            *(f"{path} ({shown_bytes(size)})" for path, size in files),
            f"{counted(len(files), 'file')}, {shown_bytes(total)}, {verb}",
        ],
    )


def _remove(store: CheckpointStore, *, retired: bool) -> list[Path]:
    # The lock: a run may be about to refer to an object.
    with ExperimentLock.acquire(store.directory.parent, only_to_remove=True) as lock:
        locked = CheckpointStore(store.directory, lock.filesystem)
        return [*(discard_retired(locked) if retired else ()), *collect_garbage(locked)]
