"""What resuming means: which checkpoint to take, and that all of it is intact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from plora_cl.checkpoint.disk_errors import naming
from plora_cl.checkpoint.encoding import decode
from plora_cl.checkpoint.objects import decode_object
from plora_cl.checkpoint.snapshot import Snapshot
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CorruptCheckpointError

log = logging.getLogger(__name__)

IsKnown: TypeAlias = Callable[[str], bool]


def _nothing_is(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Resumable:
    """A checkpoint of which every byte was verified, nothing of it applied yet.

    Attributes:
        entry: Where it is.
        snapshot: What it contains.
        objects: Tensors of what it refers to, by object name; without those that were known.
    """

    entry: CheckpointEntry
    snapshot: Snapshot
    objects: Mapping[str, Mapping[str, Tensor]]


def load(
    store: CheckpointStore, entry: CheckpointEntry, *, is_known: IsKnown = _nothing_is
) -> Resumable:
    """Read and verify one checkpoint and everything it refers to.

    Args:
        store: Where it is.
        entry: Which one.
        is_known: Tells by its digest whether an object need not be read, for instance base weights
            that are in memory.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CorruptCheckpointError: A byte of it, or of an object, is not what was written.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    data = store.read(entry)
    with naming(entry.path):
        snapshot = decode(data)
    objects: dict[str, Mapping[str, Tensor]] = {}
    for name, ref in snapshot.objects.items():
        if is_known(ref.sha256):
            continue
        with naming(f"{entry.path}: object {name}"):
            objects[name] = decode_object(store.objects.get(ref))
    return Resumable(entry, snapshot, objects)


def newest_usable(store: CheckpointStore, *, is_known: IsKnown = _nothing_is) -> Resumable | None:
    """Return the newest intact checkpoint; None where there is no checkpoint at all.

    A damaged one is skipped with a warning. One of another version of the format is not: going on
    from an older one would hide the mistake.

    Args:
        store: Where to look.
        is_known: Tells by its digest whether an object need not be read, for instance base weights
            that are in memory.

    Raises:
        CorruptCheckpointError: There are checkpoints and every one is damaged.
        IncompatibleCheckpointError: One was written by a newer version of the format.
    """
    damaged: list[str] = []
    for entry in reversed(store.entries()):
        try:
            return load(store, entry, is_known=is_known)
        except CorruptCheckpointError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
            damaged.append(str(error))
    if damaged:
        raise CorruptCheckpointError(
            f"every checkpoint in {store.directory} is damaged; start afresh with --overwrite or "
            "restore the folder from a copy: " + "; ".join(damaged)
        )
    return None
