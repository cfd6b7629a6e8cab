"""Reading every byte of checkpoints, to find damage before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plora_cl.checkpoint.disk.errors import naming
from plora_cl.checkpoint.format.manifest import BASE_WEIGHTS, ObjectRef
from plora_cl.checkpoint.format.naming import Position
from plora_cl.checkpoint.store.branches import newest_that
from plora_cl.checkpoint.store.retention import garbage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.inventory import Finding
from plora_cl.errors import CheckpointError, CheckpointNotFoundError


@dataclass(slots=True)
class Verdict(Finding):
    """The result for one checkpoint.

    Attributes:
        unusable: Why no run can resume from it; None where one can, since it is intact or only
            base weights are damaged, which a run takes from its model and stores again.
    """

    unusable: CheckpointError | None = None


@dataclass(slots=True)
class Verification:
    """The result for a store.

    Attributes:
        verdicts: One for each checkpoint, in the order of training.
        bytes_read: Of checkpoints and objects; each object is read once.
        objects: Intact objects.
        unreferenced: Objects and unfinished writes that nothing needs, with their bytes.
        resumes_from: What a run would resume from, where the whole store was verified.
        stops_resuming: Why no run would resume although there are checkpoints; or None.
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
        return all(verdict.error is None for verdict in self.verdicts)


def resume_point(store: CheckpointStore) -> CheckpointEntry | None:
    """Return the checkpoint a run resumes from, every byte verified; None where there is none.

    Raises:
        CorruptCheckpointError: There are checkpoints and every one is damaged.
        CheckpointError: The newest one cannot be used for another reason.
    """
    reader = _Reader(store, Verification())
    return newest_that(store, lambda entry: _usable(reader.verdict(entry)))


def _usable(verdict: Verdict) -> CheckpointEntry:
    if verdict.unusable is not None:
        raise verdict.unusable
    return verdict.entry


def verify(
    store: CheckpointStore, entries: Sequence[CheckpointEntry] | None = None
) -> Verification:
    """Read every byte of ``entries`` and of what they refer to, in constant memory.

    Args:
        store: Where they are.
        entries: By default all checkpoints, retired ones last.

    Raises:
        CheckpointNotFoundError: One of ``entries`` does not exist.
        CheckpointError: The directory cannot be listed.
    """
    found = Verification()
    reader = _Reader(store, found)
    for entry in store.everything() if entries is None else entries:
        try:
            found.verdicts.append(reader.verdict(entry))
        except CheckpointNotFoundError:
            if entries is not None:
                raise
            # Removed meanwhile by a running experiment.
    if entries is None:
        _find_resume_point(store, reader, found)
        try:
            found.unreferenced = {path: store.size(path) or 0 for path in garbage(store)}
        except CheckpointError:
            found.unreferenced = {}  # unknown; the verdicts say why
    return found


def _in_order(verdict: Verdict) -> tuple[bool, Position, int]:
    entry = verdict.entry
    return entry.branch is not None, entry.position, entry.branch or 0


def _find_resume_point(store: CheckpointStore, reader: _Reader, found: Verification) -> None:
    verdicts = {verdict.entry.path: verdict for verdict in found.verdicts}

    def usable(entry: CheckpointEntry) -> CheckpointEntry:
        if entry.path not in verdicts:  # a running experiment has written it meanwhile
            verdicts[entry.path] = reader.verdict(entry)
            found.verdicts.append(verdicts[entry.path])
            found.verdicts.sort(key=_in_order)
        return _usable(verdicts[entry.path])

    try:
        found.resumes_from = newest_that(store, usable, warn=False)
    except CheckpointError as error:
        found.stops_resuming = str(error)


class _Reader:
    """Reads checkpoints, and each object once; counts what it reads in ``found``."""

    def __init__(self, store: CheckpointStore, found: Verification) -> None:
        self._store, self._found = store, found
        self._objects: dict[ObjectRef, CheckpointError | None] = {}

    def verdict(self, entry: CheckpointEntry) -> Verdict:
        try:
            return self._read(entry)
        except CheckpointNotFoundError:  # a later checkpoint may store the same objects again
            self._objects = {ref: error for ref, error in self._objects.items() if error is None}
            raise

    def _read(self, entry: CheckpointEntry) -> Verdict:
        try:
            manifest = self._store.verify(entry)
            self._found.bytes_read += self._store.size(entry.path) or 0
            base = manifest.objects.get(BASE_WEIGHTS)
            with self._store.unless_removed(entry), naming(entry.path):
                for ref in manifest.refs:
                    if ref != base:
                        self._require_intact(ref)
        except CheckpointNotFoundError:
            raise
        except CheckpointError as error:
            return Verdict(entry, error, unusable=error)
        try:
            if base is not None:
                with self._store.unless_removed(entry):
                    self._require_intact(base)
        except CheckpointNotFoundError:
            raise
        except CheckpointError as error:
            return Verdict(entry, error)
        return Verdict(entry)

    def _require_intact(self, ref: ObjectRef) -> None:
        if ref not in self._objects:
            self._objects[ref] = None
            try:
                self._store.objects.verify(ref)
                self._found.objects += 1
                self._found.bytes_read += ref.bytes
            except CheckpointError as error:
                self._objects[ref] = error
        known = self._objects[ref]
        if known is not None:
            raise known
