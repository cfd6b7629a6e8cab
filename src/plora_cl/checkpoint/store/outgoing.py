"""The list of checkpoints that a new run is about to replace, kept while both runs exist."""

from __future__ import annotations

import json
import os
from pathlib import Path

from plora_cl.bounded_reading import parse_json
from plora_cl.checkpoint.disk.errors import reading, writing
from plora_cl.checkpoint.disk.filesystem import write_durably
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CorruptCheckpointError

LIST = "replaced.json"
ASIDE = ".replaced"
"""Suffix of the files of the earlier run that the new one writes under the same names."""

_SEAL_BYTES = 64


def write_list(store: CheckpointStore) -> None:
    """Write the list of all present checkpoints; durable on return.

    Raises:
        CheckpointError: The disk refused.
    """
    seals = {entry.path.name: _seal(store, entry) for entry in store.everything()}
    text = json.dumps({"checkpoints": seals}, indent=2, sort_keys=True) + "\n"
    path = _path(store)
    with writing(path):
        write_durably(store.filesystem, path, text.encode())


def remove_list(store: CheckpointStore) -> None:
    """Remove the list; durable on return.

    Raises:
        CheckpointError: The disk refused.
    """
    store.remove([_path(store)])


def has_list(store: CheckpointStore) -> bool:
    """Tell whether a new run is about to replace an earlier one.

    Raises:
        CheckpointError: The disk refused.
    """
    return store.size(_path(store)) is not None


def outgoing(store: CheckpointStore) -> set[Path]:
    """Return the files of the listed checkpoints, without new ones under the same names.

    Raises:
        CorruptCheckpointError: The list is unreadable.
        CheckpointError: The disk refused.
    """
    path = _path(store)
    if not has_list(store):
        return set()
    with reading(path), store.filesystem.open(path) as file:
        text = file.read(MAX_MANIFEST_BYTES)
    try:
        seals = parse_json(text)["checkpoints"]
        return {e.path for e in store.everything() if seals.get(e.path.name) == _seal(store, e)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpointError(
            f"{path} is unreadable: remove it to keep every checkpoint"
        ) from error


def _seal(store: CheckpointStore, entry: CheckpointEntry) -> str:
    """Return the end of the file, which tells two checkpoints of one name apart."""
    with reading(entry.path), store.filesystem.open(entry.path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _SEAL_BYTES))
        return file.read().hex()


def _path(store: CheckpointStore) -> Path:
    return store.directory.parent / LIST
