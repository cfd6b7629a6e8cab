"""Reading everything, to find what has decayed before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plora_cl.checkpoint.inventory import distinct
from plora_cl.checkpoint.manifest import ObjectRef
from plora_cl.checkpoint.retention import garbage
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one checkpoint.

    Attributes:
        entry: Which.
        problem: The first thing that is wrong with it or with an object it needs; or None.
        is_damaged: Whether that is damage, which resuming skips; other problems stop it.
    """

    entry: CheckpointEntry
    problem: str | None = None
    is_damaged: bool = False


@dataclass(slots=True)
class Verification:
    """What became of a store.

    Attributes:
        verdicts: One for each checkpoint, in the order of training.
        bytes_read: Of checkpoints and objects; each object is read once.
        objects: Objects that were read.
        unreferenced: Objects and unfinished writes that nothing needs, with their bytes.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    bytes_read: int = 0
    objects: int = 0
    unreferenced: dict[Path, int] = field(default_factory=dict)

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return all(verdict.problem is None for verdict in self.verdicts)

    @property
    def resumes_from(self) -> CheckpointEntry | None:
        """The newest intact checkpoint; None where there is none, or a newer one stops resuming."""
        for verdict in reversed(self.verdicts):
            if not verdict.is_damaged:
                return verdict.entry if verdict.problem is None else None
        return None


def verify(
    store: CheckpointStore, entries: Sequence[CheckpointEntry] | None = None
) -> Verification:
    """Read every byte of ``entries``, by default of all checkpoints, and of what they refer to.

    Memory stays constant, whatever the size.

    Raises:
        CheckpointNotFoundError: One of ``entries`` is not there.
        CheckpointError: The directory cannot be listed.
    """
    found = Verification()
    objects: dict[ObjectRef, CheckpointError | None] = {}
    for entry in store.entries() if entries is None else entries:
        try:
            found.verdicts.append(_verdict(store, entry, objects, found))
        except CheckpointNotFoundError:
            if entries is not None:
                raise
            # Removed meanwhile by a run that is going on.
    if entries is None:
        try:
            found.unreferenced = {path: store.filesystem.size(path) or 0 for path in garbage(store)}
        except CheckpointError:
            found.unreferenced = {}  # cannot be told; the verdicts say why
    return found


def _verdict(
    store: CheckpointStore,
    entry: CheckpointEntry,
    objects: dict[ObjectRef, CheckpointError | None],
    found: Verification,
) -> Verdict:
    try:
        manifest = store.verify(entry)
        found.bytes_read += store.filesystem.size(entry.path) or 0
        for ref in distinct(manifest.objects.values()):
            _require_intact(store, ref, objects, found)
    except CheckpointNotFoundError:
        raise
    except CheckpointError as error:
        return Verdict(entry, str(error), isinstance(error, CorruptCheckpointError))
    return Verdict(entry)


def _require_intact(
    store: CheckpointStore,
    ref: ObjectRef,
    objects: dict[ObjectRef, CheckpointError | None],
    found: Verification,
) -> None:
    if ref not in objects:
        objects[ref] = None
        try:
            store.objects.verify(ref)
        except CheckpointError as error:
            objects[ref] = error
        else:
            found.objects += 1
            found.bytes_read += ref.bytes
    known = objects[ref]
    if known is not None:
        raise known
