"""A new experiment that goes on from a checkpoint of another, with other settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk_errors import naming, writing
from plora_cl.checkpoint.encoding import decode, encode
from plora_cl.checkpoint.filesystem import Filesystem, LocalFilesystem
from plora_cl.checkpoint.manifest import ObjectRef
from plora_cl.checkpoint.new_folder import (
    RUN_LOG,
    claim,
    object_chunks,
    put,
    run_log_chunks,
    run_log_position,
    stream,
)
from plora_cl.checkpoint.sharing import link_verified
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CorruptCheckpointError


@dataclass(frozen=True, slots=True)
class Fork:
    """What a fork made.

    Attributes:
        entry: The checkpoint that the new experiment goes on from.
        linked: Objects that share their bytes with the parent.
        copied_bytes: Bytes of objects that could not be linked and were copied.
    """

    entry: CheckpointEntry
    linked: int
    copied_bytes: int


def fork(
    source: CheckpointEntry,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    identity: Mapping[str, Any],
    config: str,
    filesystem: Filesystem | None = None,
) -> Fork:
    """Make ``folder`` an experiment that goes on from ``source``; its checkpoint comes last.

    Args:
        source: A checkpoint; it and its objects are verified, and stay as they are.
        folder: Of the new experiment.
        settings: Every setting of the new experiment, as plain JSON.
        identity: The part of its identity that settings decide; the rest is the parent's.
        config: Text of its ``config.yaml``.
        filesystem: What performs the operations; the local disk by default.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        CorruptCheckpointError: It, or an object of it, is damaged.
        ExperimentExistsError: ``folder`` holds something else.
        CheckpointError: The disk refused.
    """
    disk = filesystem or LocalFilesystem()
    parent = CheckpointStore(source.path.parent, disk)
    data = parent.read(source)
    with naming(source.path):
        snapshot, position = decode(data), run_log_position(data)
    refs = set(snapshot.objects.values())
    for ref in refs:
        for _ in object_chunks(disk, parent.objects.path(ref), ref):
            pass
    lineage = {
        "parent": str(source.path.parent.parent.resolve()),
        "checkpoint": source.path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "changed": {
            name: {"parent": snapshot.settings.get(name), "here": value}
            for name, value in settings.items()
            if snapshot.settings.get(name) != value
        },
    }
    claim(disk, folder, lineage)
    put(disk, folder / "config.yaml", config.encode())
    run_log = source.path.parent.parent / RUN_LOG
    stream(disk, folder / RUN_LOG, run_log_chunks(disk, run_log, position))
    store = CheckpointStore(folder / "checkpoints", disk)
    with writing(store.objects.directory):
        store.objects.make_directories()
    copied = [ref for ref in refs if not _link(store, parent.objects.path(ref), ref)]
    forked = replace(snapshot, settings=dict(settings), identity={**snapshot.identity, **identity})
    entry = store.commit(source.name, encode(forked))
    return Fork(entry, len(refs) - len(copied), sum(ref.bytes for ref in copied))


def _link(store: CheckpointStore, source: Path, ref: ObjectRef) -> bool:
    """Give ``store`` the object ``ref``; where the disk cannot link, copy it and return False."""
    target = store.objects.path(ref)
    with suppress(CorruptCheckpointError):  # or missing
        store.objects.verify(ref)
        return True
    if link_verified(store.filesystem, source, target, ref):
        return True
    stream(store.filesystem, target, object_chunks(store.filesystem, source, ref))
    return False
