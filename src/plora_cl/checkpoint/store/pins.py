"""Checkpoints that nothing removes.

A pin is an empty file next to the checkpoint, ``checkpoint_task0_epoch1_batch99.pt.pin``. It exists
or it does not: no crash leaves half of one, and nothing has to be read before it is written. It
belongs to the name: a later save under the same name is pinned as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plora_cl.checkpoint.disk.errors import writing
from plora_cl.checkpoint.disk.lock_file import flock
from plora_cl.checkpoint.format.naming import Position, is_checkpoint, parse_name
from plora_cl.checkpoint.store.outgoing import outgoing
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError

_SUFFIX = ".pin"


def pin(store: CheckpointStore, entry: CheckpointEntry) -> None:
    """Keep a checkpoint from rotation, also by a run in progress; durable on return.

    Raises:
        CheckpointNotFoundError: It does not exist, or no longer.
        CheckpointError: A run that started afresh is about to replace it, or the disk refused.
    """
    marker = _marker(entry)
    with writing(marker), held(store.directory, wait=True):
        if store.size(entry.path) is None:
            raise CheckpointNotFoundError(f"{entry.path} does not exist (any more)")
        if entry.path.name in {going.name for going in outgoing(store)}:
            raise CheckpointError(
                f"{entry.path} was not pinned: the first checkpoint of the run that was started "
                "with --overwrite removes it; stop that run before, or copy the file"
            )
        with suppress(FileExistsError):
            store.filesystem.write(marker, b"")
        store.filesystem.sync_directory(store.directory)


def unpin(store: CheckpointStore, entry: CheckpointEntry) -> bool:
    """Let rotation have a checkpoint again; return whether it was pinned. Durable on return.

    Raises:
        CheckpointError: The disk refused.
    """
    marker = _marker(entry)
    with writing(marker):
        try:
            store.filesystem.remove(marker)
        except FileNotFoundError:
            return False
        store.filesystem.sync_directory(store.directory)
    return True


def copy(store: CheckpointStore, entry: CheckpointEntry, other: CheckpointEntry) -> bool:
    """Pin ``other`` too where ``entry`` is pinned, and tell whether it is; not durable yet.

    Raises:
        OSError: The disk refused.
    """
    if not is_pinned(store, entry):
        return False
    with suppress(FileExistsError):
        store.filesystem.write(_marker(other), b"")
    return True


def pinned(store: CheckpointStore) -> set[Position]:
    """Return the positions of all pinned checkpoints except retired ones.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    names = store.names(store.directory)
    return {position for name in names if (position := _position(name)) is not None}


def of_nothing(names: Collection[str]) -> list[str]:
    """Return the pins among ``names`` whose checkpoint is not among them."""
    return [
        name
        for name in names
        if name.endswith(_SUFFIX)
        and is_checkpoint(pinned := name.removesuffix(_SUFFIX))
        and pinned not in names
    ]


def is_pinned(store: CheckpointStore, entry: CheckpointEntry) -> bool:
    """Tell whether a checkpoint, perhaps a retired one, is pinned.

    Raises:
        CheckpointError: The disk refused.
    """
    return store.size(_marker(entry)) is not None


@contextmanager
def held(directory: Path, *, wait: bool) -> Iterator[bool]:
    """Keep other processes from pinning, and from removing unpinned checkpoints.

    The lock ends with the process. In a directory that does not exist, or on a disk without locks,
    it keeps no process out.

    Args:
        directory: Of the checkpoints.
        wait: Wait until another holder is done.

    Yields:
        Whether it is held.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        is_held = True
        with suppress(OSError):
            is_held = flock(descriptor, fcntl.LOCK_EX, wait=wait) is not False
        yield is_held
    finally:
        with suppress(OSError):  # nothing was written, and the lock ends anyway
            os.close(descriptor)


def _marker(entry: CheckpointEntry) -> Path:
    return entry.path.with_name(entry.path.name + _SUFFIX)


def _position(name: str) -> Position | None:
    return parse_name(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None
