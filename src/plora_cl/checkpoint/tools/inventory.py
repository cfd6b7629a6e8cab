"""What an experiment keeps, told by manifests and file sizes alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from plora_cl.checkpoint.disk.errors import naming, reading
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.store.pins import is_pinned
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError


@dataclass(frozen=True, slots=True)
class Summary:
    """One checkpoint at a glance.

    Attributes:
        entry: Where it is.
        manifest: What it says about itself; None where that cannot be read.
        problem: What is wrong with it, as far as can be told without reading all of it; or None.
        is_damaged: Whether the problem is damage, and not, for instance, a lack of permission.
        is_pinned: Whether rotation spares it.
        written: When, in seconds since 1970.
        file_bytes: Of the checkpoint file.
        unique_bytes: Of the file and of objects that no other checkpoint, here or in an experiment
            that has a hard link to them, refers to.
        shared_bytes: Of the other objects it refers to.
    """

    entry: CheckpointEntry
    manifest: Manifest | None
    problem: str | None
    is_damaged: bool
    is_pinned: bool
    written: float
    file_bytes: int
    unique_bytes: int
    shared_bytes: int

    @property
    def is_retired(self) -> bool:
        """Whether it was left behind by another branch."""
        return self.entry.branch is not None

    @property
    def is_final(self) -> bool:
        """Whether its task is complete."""
        return self.manifest is not None and self.manifest.cursor["phase"] == "done"


def summaries(store: CheckpointStore) -> list[Summary]:
    """Return every checkpoint of a store in the order of training, retired ones last.

    Only manifests are verified; `plora_cl.checkpoint.tools.verification` reads everything. What a
    run that is going on removes meanwhile is left out.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    read = [found for entry in store.everything() if (found := _read(store, entry)) is not None]
    users = Counter(ref for found in read for ref in found.objects)
    return [_summary(found, users, is_pinned=is_pinned(store, found.entry)) for found in read]


def distinct(refs: Iterable[ObjectRef]) -> list[ObjectRef]:
    """Return ``refs`` without repetitions, in the order of their digests."""
    return sorted(set(refs), key=lambda ref: ref.sha256)


@dataclass(slots=True)
class _Found:
    """What was read of one checkpoint."""

    entry: CheckpointEntry
    status: os.stat_result
    manifest: Manifest | None = None
    error: CheckpointError | None = None
    linked: set[ObjectRef] = field(default_factory=set)

    @property
    def objects(self) -> list[ObjectRef]:
        return [] if self.manifest is None else distinct(self.manifest.objects.values())


def _read(store: CheckpointStore, entry: CheckpointEntry) -> _Found | None:
    try:
        found = _Found(entry, entry.path.lstat())
    except FileNotFoundError:
        return None
    try:
        found.manifest = store.manifest(entry)
        for ref in found.objects:
            path = store.objects.path(ref)
            with naming(entry.path), reading(path):
                _require_size(store, ref, path)
                if path.lstat().st_nlink > 1:
                    found.linked.add(ref)
    except CheckpointNotFoundError:
        return None
    except CheckpointError as error:
        found.error = error
    return found


def _require_size(store: CheckpointStore, ref: ObjectRef, path: Path) -> None:
    size = store.filesystem.size(path)
    if size != ref.bytes:
        found = "is missing" if size is None else f"has {size} bytes, expected {ref.bytes}"
        raise CorruptCheckpointError(f"{path} {found}")


def _summary(found: _Found, users: Counter[ObjectRef], *, is_pinned: bool) -> Summary:
    shared = sum(ref.bytes for ref in found.objects if users[ref] > 1 or ref in found.linked)
    own = sum(ref.bytes for ref in found.objects) - shared
    return Summary(
        entry=found.entry,
        manifest=found.manifest,
        problem=None if found.error is None else str(found.error),
        is_damaged=isinstance(found.error, CorruptCheckpointError),
        is_pinned=is_pinned,
        written=found.status.st_mtime,
        file_bytes=found.status.st_size,
        unique_bytes=found.status.st_size + own,
        shared_bytes=shared,
    )
