"""Commits and retires checkpoints so that no abandoned one is overwritten by another branch."""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from pathlib import Path

from plora_cl.checkpoint.disk.errors import reading, writing
from plora_cl.checkpoint.disk.filesystem import partial_path, write_durably
from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.format.naming import retired_name
from plora_cl.checkpoint.store import pins
from plora_cl.checkpoint.store.branches import Line, line_of
from plora_cl.checkpoint.store.outgoing import outgoing
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointNotFoundError, CorruptCheckpointError

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20


def commit(
    store: CheckpointStore, name: str, data: bytes, manifest: Manifest | None = None
) -> CheckpointEntry:
    """Make a checkpoint durable; one of another branch with its name is retired first.

    Args:
        store: Where it goes.
        name: Of its file.
        data: Its bytes.
        manifest: The manifest in ``data``; read from there by default.

    Raises:
        CheckpointError: The disk refused; earlier checkpoints are still there.
    """
    manifest = manifest or sealed_zip.manifest_of(io.BytesIO(data))
    earlier = CheckpointEntry.at(store.directory / name)
    try:
        known = store.manifest(earlier).trajectory
    except (CheckpointNotFoundError, CorruptCheckpointError):
        return store.commit(name, data, manifest)
    if known.branch == manifest.trajectory.branch or earlier.path in outgoing(store):
        return store.commit(name, data, manifest)
    with pins.held(store.directory, wait=True), writing(earlier.path):
        aside = _aside(store, earlier, known.branch)
        _link(store, earlier, aside)
        is_pinned = pins.copy(store, earlier, aside)
        store.filesystem.sync_directory(store.directory)
        entry = store.commit(name, data, manifest)
        if is_pinned:
            pins.unpin(store, earlier)
    return entry


def retire(store: CheckpointStore) -> list[CheckpointEntry]:
    """Rename abandoned checkpoints; return their new entries. Durable on return.

    Also completes what a killed process left of this, or of a branch that it never committed.

    Raises:
        CheckpointError: The disk refused; abandoned checkpoints still count as such.
    """
    line = line_of(store)
    unused = _never_left(store, line)
    if not line.abandoned and not unused:
        return []
    with pins.held(store.directory, wait=True), writing(store.directory):
        moved = {entry.path: _aside(store, entry, known.branch) for entry, known in line.abandoned}
        pinned = [
            entry for entry, _ in line.abandoned if pins.copy(store, entry, moved[entry.path])
        ]
        pinned += [entry for entry in unused if pins.copy(store, entry, _live(entry))]
        if pinned:  # before the rename: no name may be unpinned
            store.filesystem.sync_directory(store.directory)
        for path, aside in moved.items():
            store.filesystem.rename(path, aside.path)
        for entry in unused:
            store.filesystem.remove(entry.path)
        store.filesystem.sync_directory(store.directory)
        for entry in pinned:
            pins.unpin(store, entry)
    return list(moved.values())


def _never_left(store: CheckpointStore, line: Line) -> list[CheckpointEntry]:
    """Return retired names of checkpoints that are still on the line: no branch was committed."""
    if line.head is None:
        return []
    there, head = {entry.name for entry in line.entries}, line.head.branch
    return [
        entry
        for entry in store.retired()
        if entry.branch == head
        and entry.name in there
        and _is_same(store, entry.path, _live(entry).path)
    ]


def _live(entry: CheckpointEntry) -> CheckpointEntry:
    return CheckpointEntry.at(entry.path.with_name(entry.name))


def _aside(store: CheckpointStore, entry: CheckpointEntry, branch: int) -> CheckpointEntry:
    """Return the retired name of a checkpoint, or the next free one where another has that."""
    while True:
        aside = CheckpointEntry.at(entry.path.with_name(retired_name(entry.name, branch)))
        is_free = store.size(aside.path) is None
        if is_free or _is_same(store, entry.path, aside.path):
            return aside
        branch += 1


def _is_same(store: CheckpointStore, one: Path, other: Path) -> bool:
    """Tell whether two files hold the same bytes; False where one of them cannot be read."""
    disk = store.filesystem
    try:
        if disk.size(one) != disk.size(other):
            return False
        with disk.open(one) as first, disk.open(other) as second:
            while block := first.read(_BLOCK_BYTES):
                if block != second.read(_BLOCK_BYTES):
                    return False
    except OSError as error:
        log.debug("%s and %s count as different: %s", one, other, error)
        return False
    return True


def _link(store: CheckpointStore, entry: CheckpointEntry, aside: CheckpointEntry) -> None:
    """Give the file of ``entry`` the name ``aside`` too; copy it where the disk cannot link."""
    disk, partial = store.filesystem, partial_path(aside.path)
    try:
        with disk.open(entry.path) as file:
            disk.link(file, entry.path, partial)
        disk.rename(partial, aside.path)
    except OSError as error:
        log.debug("%s is copied, not linked: %s", entry.path, error)
        with reading(entry.path), disk.open(entry.path) as file:
            data = file.read()
        write_durably(disk, aside.path, data)
    finally:
        with suppress(OSError):  # a rename between two names of one file does nothing
            disk.remove(partial)
