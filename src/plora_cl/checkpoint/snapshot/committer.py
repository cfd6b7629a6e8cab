"""The half of a save that runs on the writer: encode, hash, commit, clean up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.checkpoint.snapshot.codec import encode_with_manifest
from plora_cl.checkpoint.snapshot.constants import Constants
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.checkpoint.store.replacement import complete
from plora_cl.checkpoint.store.retention import rotate, tidy
from plora_cl.checkpoint.store.retiring import commit, retire
from plora_cl.checkpoint.store.space import keep_within, shortage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError
from plora_cl.state import StateDict

log = logging.getLogger(__name__)


class SaveListener(Protocol):
    """Is told, on the thread of the writer, how saves end."""

    def saved(self, entry: CheckpointEntry, cursor: StateDict, /) -> None:
        """A checkpoint is durable; ``cursor`` is its position."""
        ...

    def warn(self, text: str, /) -> None:
        """A save failed, old checkpoints could not be removed, or the disk is nearly full."""
        ...


class LogsSaves:
    """Logs how saves end."""

    def saved(self, entry: CheckpointEntry, cursor: StateDict, /) -> None:
        """See `SaveListener`."""
        log.info("saved %s (step %d)", entry.path, cursor["step"])

    def warn(self, text: str, /) -> None:
        """See `SaveListener`."""
        log.warning("%s", text)


@dataclass(frozen=True, slots=True)
class Save:
    """One save, as the training thread has noted it.

    Attributes:
        number: From 1; greater than those of the saves before.
        path: Of the checkpoint, in the store.
        snapshot: Without references to objects.
        constants: What it refers to.
        staging: The memory that ``snapshot`` is in.
    """

    number: int
    path: Path
    snapshot: Snapshot
    constants: Constants
    staging: HostStaging


class Committer:
    """Makes snapshots durable, one after the other: nothing but jobs of the writer calls `write`.

    Args:
        store: Where checkpoints go.
        hashed: By object name the reference to constants that are hashed already, or being hashed.
        keep_last: Checkpoints of the task in training that stay.
        disk_budget: Most bytes that checkpoints may take; None for no bound.
        before_commit: Makes durable what a checkpoint relies on outside the store.
        listener: Told about each save.

    Attributes:
        newest: The last durable checkpoint. Read it only after the writer was flushed.
        durable: Number of the last durable save, from 1; 0 before. As for `newest`.
        failure: Why the last save failed; None where it did not. As for `newest`.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        hashed: Mapping[str, Future[ObjectRef]],
        keep_last: int,
        disk_budget: int | None,
        before_commit: Callable[[], None],
        listener: SaveListener,
    ) -> None:
        self.store = store
        self._hashed, self._before_commit, self._listener = hashed, before_commit, listener
        self._keep_last, self._disk_budget = keep_last, disk_budget
        self.newest: CheckpointEntry | None = None
        self.durable = 0
        self.failure: Exception | None = None
        self._stored: Constants | None = None
        self._refs: dict[str, ObjectRef] = {}
        self._retired_for: Trajectory | None = None
        self._warned_of_shortage_in: int | None = None
        self._warned_of_budget = False

    def write(self, save: Save, *, release: Callable[[], object]) -> None:
        """Do the work of ``save``. A refusal by the disk is reported, and not raised.

        Args:
            save: What to write.
            release: Called when ``save.staging`` is not needed any more.

        Raises:
            CheckpointError: No checkpoint can hold the state; the message names where.
        """
        try:
            manifest = self._commit(save)
        except BaseException as error:
            if self.durable < save.number:
                self.failure = error if isinstance(error, Exception) else _interrupted(save, error)
            raise
        finally:
            release()
        if manifest is not None:
            self._clean_up(save.snapshot.trajectory, manifest)

    def tidy(self, entry: CheckpointEntry) -> None:
        """Do for ``entry`` what the process that saved it may have been killed before.

        Call it before the first save: it does not run on the writer.

        Raises:
            CheckpointError: The disk refused.
        """
        if self.store.holds(entry):
            tidy(self.store, entry, self._keep_last)
            self.newest = entry

    def _commit(self, save: Save) -> Manifest | None:
        try:
            save.staging.complete()
            save.staging.wait()
            self._before_commit()
            self._store_constants(save.constants)
            data, manifest = self._encoded(save)
            self._warn_of_shortage(save.snapshot.cursor["task"], len(data))
            entry = commit(self.store, save.path.name, data, manifest)
        except _UnstorableError:
            raise  # not the disk: the next save would fail as well
        except (CheckpointError, OSError, MemoryError) as error:
            self._stored, self._refs = None, {}  # what is gone is stored again next time
            self.failure = CheckpointError(f"no checkpoint {save.path}: {error}")
            self._listener.warn(f"{self.failure}; the next save, if any, tries again")
            return None
        self.failure, self.newest, self.durable = None, entry, save.number
        self._listener.saved(entry, save.snapshot.cursor)
        return manifest

    def _encoded(self, save: Save) -> tuple[bytes, Manifest]:
        try:
            return encode_with_manifest(replace(save.snapshot, objects=self._refs))
        except CheckpointError as error:
            raise _UnstorableError(f"no checkpoint {save.path}: {error}") from error

    def _clean_up(self, trajectory: Trajectory, manifest: Manifest) -> None:
        """Remove what the commit of `newest` has made superfluous."""
        assert self.newest is not None
        try:
            complete(self.store, self.newest)
            if trajectory is not self._retired_for:  # a new object each time a run is resumed
                retire(self.store)
                self._retired_for = trajectory
            rotate(self.store, self.newest, self._keep_last, manifest)
            if self._disk_budget is not None:
                keep_within(self.store, self.newest, self._disk_budget, warn=self._warn_of_budget)
        except CheckpointError as error:
            self._listener.warn(f"old checkpoints were not removed: {error}")

    def _warn_of_budget(self, line: str) -> None:
        if not self._warned_of_budget:  # else each save would say it
            self._warned_of_budget = True
            self._listener.warn(line)

    def _warn_of_shortage(self, task: int, checkpoint_bytes: int) -> None:
        line = shortage(
            self.store, task=task, checkpoint_bytes=checkpoint_bytes, keep_last=self._keep_last
        )
        if line is not None and task != self._warned_of_shortage_in:
            self._listener.warn(line)
        self._warned_of_shortage_in = None if line is None else task

    def _store_constants(self, constants: Constants) -> None:
        stored = self._stored
        if constants is stored:
            return
        self._refs = {
            name: self._refs[name]
            if stored is not None and stored.shares(name, constants)
            else self._put(name, constants)
            for name in constants.parts
        }
        self._stored = constants

    def _put(self, name: str, constants: Constants) -> ObjectRef:
        part = constants.parts[name]
        if name not in self._hashed:
            return self.store.objects.put(encode_object(part.state_dict()))
        ref = self._hashed[name].result()
        self.store.objects.ensure(ref, lambda: encode_object(part.state_dict()))
        return ref


class _UnstorableError(CheckpointError):
    """No checkpoint can hold the state of a save."""


def _interrupted(save: Save, by: BaseException) -> CheckpointError:
    return CheckpointError(f"no checkpoint {save.path}: {type(by).__name__} interrupted the save")
