"""Free space for the next saves, and the budget for all checkpoints."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path

from plora_cl.checkpoint.disk.errors import reading
from plora_cl.checkpoint.store import pins
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError

log = logging.getLogger(__name__)


def free_bytes(path: Path) -> int:
    """Return the bytes this user may still write to the file system of ``path``.

    Raises:
        OSError: The disk refused.
    """
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def shortage(
    store: CheckpointStore,
    *,
    task: int,
    checkpoint_bytes: int,
    keep_last: int,
    free_bytes: Callable[[Path], int] = free_bytes,
) -> str | None:
    """Return a line for the user where the next saves will not fit on the disk, else None.

    At the peak there are ``keep_last + 1`` checkpoints of the task in training, since a new one is
    durable before an old one is removed. Existing ones take no more space.

    Args:
        store: Where the saves go.
        task: Zero-based task in training.
        checkpoint_bytes: Of one checkpoint file; its objects are stored already.
        keep_last: Checkpoints of the task in training that stay.
        free_bytes: Asks the file system of an existing path.

    Raises:
        CheckpointError: The disk refused.
    """
    there = sum(entry.position.task == task for entry in store.entries())
    with reading(store.directory):
        place = next(
            p for p in (store.directory, *store.directory.absolute().parents) if p.exists()
        )
        free = free_bytes(place)
    needed = checkpoint_bytes * max(1, keep_last + 1 - there)
    if free >= needed:
        return None
    return (
        f"{store.directory}: {free} bytes are free and the next saves need {needed}; make room, or "
        "keep fewer checkpoints (setting keep_last_n_checkpoints)"
    )


def kept_bytes(store: CheckpointStore) -> int:
    """Return the bytes of all checkpoints and objects; a hard-linked object counts in full.

    Raises:
        CheckpointError: The disk refused.
    """
    objects = store.objects.directory
    paths = [entry.path for entry in store.everything()]
    paths += [objects / name for name in store.names(objects)]
    return sum(store.size(path) or 0 for path in paths)


def keep_within(
    store: CheckpointStore,
    current: CheckpointEntry,
    budget: int,
    *,
    warn: Callable[[str], object] = log.warning,
) -> list[CheckpointEntry]:
    """Remove checkpoints down to ``budget``, after a save and its rotation; return them.

    The oldest checkpoints of the task in training go first. The one just saved, those ahead of it,
    the last one of each completed task and pinned ones always stay; ``warn`` is told where these
    alone exceed the budget. While another process sets a pin, removal is left to the next save.

    Args:
        store: Where the checkpoints are.
        current: The checkpoint that was committed last.
        budget: Bytes that checkpoints and objects may take.
        warn: Told where those that stay exceed it.

    Raises:
        CheckpointError: The disk refused.
    """
    if kept_bytes(store) <= budget:
        return []
    with pins.held(store.directory, wait=False) as is_held:
        if not is_held:
            return []
        going, needed = _beyond(store, current, budget)
        if going:
            store.delete(going)
    if needed > budget:
        warn(
            f"{store.directory}: checkpoints that must stay take {needed} bytes and the disk "
            f"budget is {budget} (setting checkpoint_disk_budget); raise it, unpin some, or remove "
            "retired ones with plora-cl checkpoints gc --retired"
        )
    collect_garbage(store)
    return going


def _beyond(
    store: CheckpointStore, current: CheckpointEntry, budget: int
) -> tuple[list[CheckpointEntry], int]:
    """Return what has to be removed for ``budget``, and the bytes that the others need."""
    pinned, entries = pins.pinned(store), store.entries()
    going: list[CheckpointEntry] = []
    retired = store.retired()
    needed = _needed_by(store, [*entries, *retired])
    for entry in entries:
        if needed <= budget:
            break
        in_training = entry.position.task == current.position.task and entry < current
        if in_training and entry.position not in pinned:
            going.append(entry)
            left = [entry for entry in entries if entry not in going]
            needed = _needed_by(store, [*left, *retired])
    return going, needed


def _needed_by(store: CheckpointStore, entries: Collection[CheckpointEntry]) -> int:
    """Return the bytes of ``entries`` and of their objects; all objects where that is unknown.

    Only the manifests are read.
    """
    objects: dict[str, int] = {}
    try:
        for entry in entries:
            objects |= {ref.sha256: ref.bytes for ref in store.manifest(entry).objects.values()}
    except CheckpointError:
        gone = {entry.path for entry in store.everything()} - {entry.path for entry in entries}
        return kept_bytes(store) - sum(store.size(path) or 0 for path in gone)
    own = sum(store.size(entry.path) or 0 for entry in entries)
    return own + sum(objects.values())
