"""Reading the checkpoint to resume from, with every byte verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from plora_cl.checkpoint.disk.errors import naming
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.format.tensor_object import decode_object
from plora_cl.checkpoint.snapshot.codec import decode_with_manifest
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.checkpoint.store.branches import newest_that
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore

IsKnown: TypeAlias = Callable[[str], bool]


def _nothing_is(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Resumable:
    """A checkpoint whose bytes are verified; nothing of it is applied yet.

    Attributes:
        entry: Where it is.
        snapshot: What it contains.
        objects: Tensors of what it refers to, by object name; without those that were known.
        manifest: Its table of contents.
    """

    entry: CheckpointEntry
    snapshot: Snapshot
    objects: Mapping[str, Mapping[str, Tensor]]
    manifest: Manifest


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
        CheckpointNotFoundError: There is no such file, or it was removed meanwhile.
        CorruptCheckpointError: A byte of it, or of an object, is not what was written.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    data = store.read_unverified(entry)
    with naming(entry.path):
        snapshot, manifest = decode_with_manifest(data)
    objects: dict[str, Mapping[str, Tensor]] = {}
    for name, ref in snapshot.objects.items():
        if is_known(ref.sha256):
            continue
        with store.unless_removed(entry), naming(f"{entry.path}: object {name}"):
            objects[name] = decode_object(store.objects.get(ref))
    return Resumable(entry, snapshot, objects, manifest)


def newest_usable(store: CheckpointStore, *, is_known: IsKnown = _nothing_is) -> Resumable | None:
    """Return the checkpoint that a run resumes from, see `newest_that`; None if there is none.

    Args:
        store: Where to look.
        is_known: Tells by its digest whether an object need not be read, for instance base weights
            that are in memory.

    Raises:
        CorruptCheckpointError: There are checkpoints and every one is damaged.
        IncompatibleCheckpointError: One was written by a newer version of the format.
    """
    return newest_that(store, lambda entry: load(store, entry, is_known=is_known))
