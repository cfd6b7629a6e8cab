"""Checkpoints that nothing removes.

A pin is an empty file beside the checkpoint, ``checkpoint_task0_epoch1_batch99.pt.pin``: it is
there or it is not, so that no crash leaves half of one and nothing has to be read before it is
written. It belongs to the name: a later save under the same name is pinned as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plora_cl.checkpoint.disk.errors import reading, writing
from plora_cl.checkpoint.format.naming import Position, is_checkpoint, parse_name
from plora_cl.checkpoint.store.outgoing import outgoing
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError

_SUFFIX = ".pin"


def pin(store: CheckpointStore, entry: CheckpointEntry) -> None:
    """Keep a checkpoint from rotation, also by a run that is going on; durable on return.

    Raises:
        CheckpointNotFoundError: It is not there, or not any more.
        CheckpointError: A run that was started afresh is about to replace it, or the disk refused.
    """
    marker = _marker(entry)
    with writing(marker), held(store.directory, wait=True):
        if store.filesystem.size(entry.path) is None:
            raise CheckpointNotFoundError(f"{entry.path} is not there (any more)")
        if entry.path.name in {going.path.name for going in outgoing(store)}:
            raise CheckpointError(
                f"{entry.path} was not pinned: it goes with the first checkpoint of the run that "
                "was started with --overwrite; stop that run before, or copy the file"
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
    if store.filesystem.size(_marker(entry)) is None:
        return False
    with suppress(FileExistsError):
        store.filesystem.write(_marker(other), b"")
    return True


def pinned(store: CheckpointStore) -> set[Position]:
    """Return the positions of all pinned checkpoints, but for retired ones.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    with reading(store.directory):
        names = store.filesystem.names(store.directory)
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
    """Tell whether a checkpoint, which may be a retired one, is pinned.

    Raises:
        CheckpointError: The disk refused.
    """
    with reading(entry.path):
        return store.filesystem.size(_marker(entry)) is not None


@contextmanager
def held(directory: Path, *, wait: bool) -> Iterator[bool]:
    """Keep other processes from pinning, and from removing what is not pinned.

    The lock ends with the process, however that ends. A directory that is not there, or on a disk
    without locks, holds nobody back.

    Args:
        directory: Of the checkpoints.
        wait: Until whoever holds it is done.

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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_held = False
        except OSError:
            pass
        yield is_held
    finally:
        with suppress(OSError):  # nothing was written, and the lock ends even so
            os.close(descriptor)


def _marker(entry: CheckpointEntry) -> Path:
    return entry.path.with_name(entry.path.name + _SUFFIX)


def _position(name: str) -> Position | None:
    return parse_name(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None
