"""The checkpoints of an experiment and the bytes they take, from manifests and file sizes alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from os import stat_result

from plora_cl.checkpoint.disk.errors import naming, reading
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.store.pins import is_pinned
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError


@dataclass(slots=True)
class Finding:
    """What is wrong with a checkpoint, if anything.

    Attributes:
        entry: The checkpoint.
        error: The first error of it or of an object it needs; None where there is none.
    """

    entry: CheckpointEntry
    error: CheckpointError | None = None

    @property
    def problem(self) -> str | None:
        """The error as text."""
        return None if self.error is None else str(self.error)

    @property
    def is_damaged(self) -> bool:
        """Whether the error is damage, and not, for instance, a lack of permission."""
        return isinstance(self.error, CorruptCheckpointError)


@dataclass(slots=True, kw_only=True)
class Summary(Finding):
    """One checkpoint at a glance.

    Attributes:
        status: Of its file.
        manifest: Its manifest; None where that cannot be read.
        is_pinned: Whether rotation spares it.
        shared: Objects that another checkpoint, here or in an experiment that has a hard link to
            them, refers to as well.
    """

    status: stat_result
    manifest: Manifest | None = None
    is_pinned: bool = False
    shared: set[ObjectRef] = field(default_factory=set)

    @property
    def objects(self) -> list[ObjectRef]:
        """The objects it refers to, without repetitions."""
        return [] if self.manifest is None else self.manifest.refs

    @property
    def shared_bytes(self) -> int:
        """Bytes of the shared objects."""
        return sum(ref.bytes for ref in self.shared)

    @property
    def unique_bytes(self) -> int:
        """Bytes of the checkpoint file and of objects that nothing else refers to."""
        total = sum(ref.bytes for ref in self.objects)
        return self.status.st_size + total - self.shared_bytes

    @property
    def is_retired(self) -> bool:
        """Whether it was left behind on another branch."""
        return self.entry.branch is not None

    @property
    def is_final(self) -> bool:
        """Whether its task is complete."""
        return self.manifest is not None and self.manifest.cursor["phase"] == "done"


def summaries(store: CheckpointStore) -> list[Summary]:
    """Return every checkpoint of a store in the order of training, retired ones last.

    Only manifests are verified; `plora_cl.checkpoint.tools.verification` reads everything. A
    checkpoint that a running experiment removes meanwhile is left out.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    read = [found for entry in store.everything() if (found := _read(store, entry)) is not None]
    users = Counter(ref for found in read for ref in found.objects)
    for found in read:
        found.shared |= {ref for ref in found.objects if users[ref] > 1}
        found.is_pinned = is_pinned(store, found.entry)
    return read


def _read(store: CheckpointStore, entry: CheckpointEntry) -> Summary | None:
    try:
        found = Summary(entry, status=entry.path.lstat())
    except FileNotFoundError:
        return None
    try:
        found.manifest = store.manifest(entry)
        for ref in found.objects:
            path = store.objects.path(ref)
            with store.unless_removed(entry), naming(entry.path), reading(path):
                size = store.size(path)
                if size is None:
                    raise CorruptCheckpointError(f"{path} is missing")
                if size != ref.bytes:
                    raise CorruptCheckpointError(f"{path} has {size} bytes, expected {ref.bytes}")
                if path.lstat().st_nlink > 1:
                    found.shared.add(ref)
    except CheckpointNotFoundError:
        return None
    except CheckpointError as error:
        found.error = error
    return found
