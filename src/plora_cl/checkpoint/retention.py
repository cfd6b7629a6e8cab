"""Which files go: old checkpoints, objects that nothing needs, writes that never finished."""

from __future__ import annotations

import logging
from pathlib import Path

from plora_cl.checkpoint import pins
from plora_cl.checkpoint.branches import retire
from plora_cl.checkpoint.disk_errors import reading, writing
from plora_cl.checkpoint.filesystem import is_partial
from plora_cl.checkpoint.manifest import Manifest
from plora_cl.checkpoint.policy import retained
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CorruptCheckpointError

log = logging.getLogger(__name__)


def rotate(
    store: CheckpointStore, current: CheckpointEntry, keep_last: int
) -> list[CheckpointEntry]:
    """Remove what retention lets go of, now that ``current`` is durable; return what went.

    Pinned checkpoints stay. While another process sets a pin nothing goes: that is left to the next
    rotation, so that training never waits.

    Args:
        store: Where the checkpoints are.
        current: The checkpoint that was committed last.
        keep_last: Checkpoints of the task in training that stay, at least 1.

    Raises:
        CheckpointError: The disk refused.
        ValueError: ``keep_last`` is below 1.
    """
    manifest = _manifest(store, current)
    is_done = manifest is not None and manifest.cursor["phase"] == "done"
    done = [current.position.task] if is_done else []
    with pins.held(store.directory, wait=False) as is_held:
        if not is_held:
            return []
        entries = store.entries()
        kept = retained(
            (entry.position for entry in entries), keep_last, current=current.position, done=done
        ) | pins.pinned(store)
        stale = [entry for entry in entries if entry.position not in kept]
        leave_objects = _leave_objects(store, stale, manifest)
        if stale:
            store.delete(stale)
    if leave_objects:
        collect_garbage(store)
    return stale


def tidy(store: CheckpointStore, current: CheckpointEntry, keep_last: int) -> None:
    """Finish what a process that was stopped after it had committed ``current`` had begun.

    What is abandoned is moved aside, and what retention lets go of is removed.

    Raises:
        CheckpointError: The disk refused.
        ValueError: ``keep_last`` is below 1.
    """
    with writing(store.directory):
        store.filesystem.sync_directory(store.directory)  # ``current`` may be visible, not durable
    retire(store)
    rotate(store, current, keep_last)
    collect_garbage(store)


def collect_garbage(store: CheckpointStore) -> list[Path]:
    """Remove what `garbage` finds; nothing while that cannot be told.

    Returns:
        The files that were removed.

    Raises:
        CheckpointError: The disk refused.
    """
    try:
        found = garbage(store)
    except CheckpointError as error:
        log.warning("%s: nothing is cleaned up, since %s", store.directory, error)
        return []
    if found:
        with writing(store.directory):
            # A checkpoint removed by a process that was killed must not come back without them.
            store.filesystem.sync_directory(store.directory)
    for path in found:
        with writing(path):
            if path.parent == store.objects.directory:
                store.objects.remove(path)
            else:
                store.filesystem.remove(path)
    return found


def garbage(store: CheckpointStore) -> list[Path]:
    """Return objects that no checkpoint refers to, unfinished writes, and pins of nothing.

    Objects put since the store was opened stay until a commit has referred to them.

    Raises:
        CheckpointError: The manifest of a checkpoint is unreadable, so that what it needs is
            unknown, or the disk refused.
    """
    live: set[str] = set()
    for entry in store.everything():
        live |= {ref.sha256 for ref in store.manifest(entry).objects.values()}
    with reading(store.directory):
        names = store.filesystem.names(store.directory)
    left = [name for name in names if is_partial(name)]
    left += pins.of_nothing(names)
    return [*(store.directory / name for name in left), *store.objects.unused(live)]


def _leave_objects(
    store: CheckpointStore, stale: list[CheckpointEntry], current: Manifest | None
) -> bool:
    """Return whether removing ``stale`` may leave objects behind that nothing needs.

    Most often it does not: then the manifests of all the other checkpoints need not be read.
    """
    needed = set(current.objects.values()) if current is not None else set()
    manifests = (_manifest(store, entry) for entry in stale)
    return any(m is None or not needed.issuperset(m.objects.values()) for m in manifests)


def _manifest(store: CheckpointStore, entry: CheckpointEntry) -> Manifest | None:
    try:
        return store.manifest(entry)
    except CorruptCheckpointError:
        return None
