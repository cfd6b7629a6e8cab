"""Reading everything, to find what has decayed before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plora_cl.checkpoint.disk.errors import naming
from plora_cl.checkpoint.format.manifest import BASE_WEIGHTS, ObjectRef
from plora_cl.checkpoint.store.branches import newest_that
from plora_cl.checkpoint.store.retention import garbage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.inventory import distinct
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one checkpoint.

    Attributes:
        entry: Which.
        problem: The first thing that is wrong with it or with an object it needs; or None.
        is_damaged: Whether that is damage, and not, for instance, a lack of permission.
        unusable: Why no run goes on from it; None where one does, since it is intact or only base
            weights are wrong, which a run has from its model and stores anew.
    """

    entry: CheckpointEntry
    problem: str | None = None
    is_damaged: bool = False
    unusable: CheckpointError | None = None


@dataclass(slots=True)
class Verification:
    """What became of a store.

    Attributes:
        verdicts: One for each checkpoint, in the order of training.
        bytes_read: Of checkpoints and objects; each object is read once.
        objects: Objects that were read.
        unreferenced: Objects and unfinished writes that nothing needs, with their bytes.
        resumes_from: What a run would be resumed from, where the whole store was verified.
        stops_resuming: Why no run would be resumed although there are checkpoints; or None.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    bytes_read: int = 0
    objects: int = 0
    unreferenced: dict[Path, int] = field(default_factory=dict)
    resumes_from: CheckpointEntry | None = None
    stops_resuming: str | None = None

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return all(verdict.problem is None for verdict in self.verdicts)


def resume_point(store: CheckpointStore) -> CheckpointEntry | None:
    """Return the checkpoint that a run is resumed from, every byte verified; None where none is.

    Raises:
        CorruptCheckpointError: There are checkpoints and every one is damaged.
        CheckpointError: The newest one cannot be used for another reason.
    """
    objects: dict[ObjectRef, CheckpointError | None] = {}
    return newest_that(store, lambda entry: _usable(_verdict(store, entry, objects, None)))


def _usable(verdict: Verdict) -> CheckpointEntry:
    if verdict.unusable is not None:
        raise verdict.unusable
    return verdict.entry


def verify(
    store: CheckpointStore, entries: Sequence[CheckpointEntry] | None = None
) -> Verification:
    """Read every byte of ``entries``, by default of all checkpoints, and of what they refer to.

    By default retired ones are among them, and last.

    Memory stays constant, whatever the size.

    Raises:
        CheckpointNotFoundError: One of ``entries`` is not there.
        CheckpointError: The directory cannot be listed.
    """
    found = Verification()
    objects: dict[ObjectRef, CheckpointError | None] = {}
    for entry in store.everything() if entries is None else entries:
        try:
            found.verdicts.append(_verdict(store, entry, objects, found))
        except CheckpointNotFoundError:
            if entries is not None:
                raise
            # Removed meanwhile by a run that is going on.
    if entries is None:
        _find_resume_point(store, found)
        try:
            found.unreferenced = {path: store.filesystem.size(path) or 0 for path in garbage(store)}
        except CheckpointError:
            found.unreferenced = {}  # cannot be told; the verdicts say why
    return found


def _find_resume_point(store: CheckpointStore, found: Verification) -> None:
    verdicts = {verdict.entry.path: verdict for verdict in found.verdicts}

    def usable(entry: CheckpointEntry) -> CheckpointEntry:
        if entry.path not in verdicts:
            raise CorruptCheckpointError(f"{entry.path} came meanwhile")
        return _usable(verdicts[entry.path])

    try:
        found.resumes_from = newest_that(store, usable, warn=False)
    except CheckpointError as error:
        found.stops_resuming = str(error)


def _verdict(
    store: CheckpointStore,
    entry: CheckpointEntry,
    objects: dict[ObjectRef, CheckpointError | None],
    found: Verification | None,
) -> Verdict:
    try:
        manifest = store.verify(entry)
        if found is not None:
            found.bytes_read += store.filesystem.size(entry.path) or 0
        base = manifest.objects.get(BASE_WEIGHTS)
        others = {ref for ref in manifest.objects.values() if ref != base}
        with naming(entry.path):
            for ref in distinct(others):
                _require_intact(store, ref, objects, found)
    except CheckpointNotFoundError:
        raise
    except CheckpointError as error:
        return Verdict(entry, str(error), isinstance(error, CorruptCheckpointError), error)
    try:
        if base is not None:
            _require_intact(store, base, objects, found)
    except CheckpointError as error:
        return Verdict(entry, str(error), isinstance(error, CorruptCheckpointError))
    return Verdict(entry)


def _require_intact(
    store: CheckpointStore,
    ref: ObjectRef,
    objects: dict[ObjectRef, CheckpointError | None],
    found: Verification | None,
) -> None:
    if ref not in objects:
        objects[ref] = None
        try:
            store.objects.verify(ref)
        except CheckpointError as error:
            objects[ref] = error
        else:
            if found is not None:
                found.objects += 1
                found.bytes_read += ref.bytes
    known = objects[ref]
    if known is not None:
        raise known
