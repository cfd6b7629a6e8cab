"""The half of a save that runs on the training thread: note what changes, and continue."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.format.trajectory import Trajectory, digest_of
from plora_cl.checkpoint.snapshot.committer import Committer, Save
from plora_cl.checkpoint.snapshot.constants import Constants
from plora_cl.checkpoint.snapshot.snapshot import RunFacts, Snapshot
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.checkpoint.snapshot.writer import Writer
from plora_cl.checkpoint.store.branches import started_afresh
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError
from plora_cl.state import StateDict, Stateful

_SNAPSHOTS_UNDER_WAY = 2


def first_trajectory(store: CheckpointStore | None, facts: Mapping[str, Any]) -> Trajectory:
    """Return the trajectory of a run that starts with ``facts``, plain JSON that decides it all.

    Args:
        store: Where it saves, and others may have; None for nowhere.
        facts: Equal runs have equal ones.

    Raises:
        CheckpointError: The store cannot be listed.
    """
    identifier = digest_of(facts)
    return Trajectory(identifier) if store is None else started_afresh(store, identifier)


class Saver:
    """Saves snapshots of one run.

    `save` notes what changes and returns. The writer copies it, and its `Committer` does the rest.
    At most one snapshot waits while another is written: a third save waits for its memory. What the
    two halves share is what a job carries: immutable values, and staging memory that belongs to one
    job at a time. `save` and `flush` are for one thread; an interrupt at any instant of them loses
    no memory.

    Args:
        committer: The other half.
        writer: Runs it, in order.
        facts: What each checkpoint says of the run.
        copies_at_once: Whether all that was saved may change when `save` returns, without `settle`.

    Attributes:
        facts: As above; another value is in effect from the next save on.
    """

    def __init__(
        self,
        committer: Committer,
        writer: Writer,
        facts: RunFacts,
        *,
        copies_at_once: bool = False,
    ) -> None:
        self.facts = facts
        self._committer, self._writer = committer, writer
        self._copies_at_once = copies_at_once
        self._stagings = [HostStaging() for _ in range(_SNAPSHOTS_UNDER_WAY)]
        self._leases: set[_Lease] = set()
        self._returned: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._accepted: tuple[int, Path | None] = (0, None)
        self._unsettled: HostStaging | None = None

    def save(
        self,
        last_done: tuple[int, int],
        live: Mapping[str, Stateful],
        constants: Constants,
        *,
        cursor: StateDict,
        trained_tasks: Sequence[str],
        loss: float | None,
        trajectory: Trajectory,
    ) -> Path:
        """Save this instant and return the path; after `flush` it survives a power cut.

        Call `settle` before any tensor of ``live`` changes. A disk that refuses does not stop
        training: the listener is told, earlier checkpoints stay, and the next save tries again.

        Args:
            last_done: Epoch and batch, zero-based, of the last batch done: the file's name.
            live: Components that change from step to step, by name.
            constants: Components that do not. The writer reads their tensors later.
            cursor: What runs next.
            trained_tasks: Names of the finished tasks.
            loss: Of the last step.
            trajectory: The computation that the checkpoint is an instant of.

        Raises:
            TypeError: A state holds neither tensors nor plain values; the message names where.
            BaseException: An earlier save failed for a reason that was not the disk.
        """
        self.settle()
        path = self._committer.store.directory / checkpoint_name(cursor["task"], *last_done)
        number, lease = next(self._numbers), _Lease(self._unused())

        def release() -> None:
            self._leases.discard(lease)
            if self._returned.empty():
                self._returned.put(None)

        def drop() -> None:
            if lease.is_given_up():
                release()

        def write() -> None:
            if lease.is_taken():
                noted = Save(number, path, snapshot, constants, lease.staging)
                self._committer.write(noted, release=release)

        try:
            self._leases.add(lease)
            snapshot = Snapshot.capture(
                live,
                cursor=cursor,
                trained_tasks=trained_tasks,
                loss=loss,
                facts=self.facts,
                trajectory=trajectory,
                staging=lease.staging,
            )
            if self._copies_at_once:
                lease.staging.complete()
            else:
                self._unsettled = lease.staging
            self._writer.submit(write, dropped=drop)
        except BaseException:
            drop()
            if lease not in self._leases:
                self._unsettled = None
            raise
        self._accepted = (number, path)
        return path

    def settle(self) -> None:
        """Return when the tensors that were saved last may change; call it before they do.

        Most often the writer has copied them by then.

        Raises:
            CheckpointError: They have changed already.
        """
        if self._unsettled is not None:
            staging, self._unsettled = self._unsettled, None
            staging.complete()

    def flush(self) -> None:
        """Return when every save is durable.

        Raises:
            CheckpointError: The last one is not, for a reason that was reported.
            BaseException: A save failed for a reason that was not the disk, and none since then is
                durable.
        """
        self._writer.flush()
        if self._committer.failure is not None:
            raise self._committer.failure
        number, path = self._accepted
        if self._committer.durable < number:
            raise CheckpointError(f"no checkpoint {path}: its save was dropped by an interrupt")

    def _unused(self) -> HostStaging:
        """Return memory that no save holds; wait for it."""
        while True:
            held = [lease.staging for lease in tuple(self._leases)]
            for staging in self._stagings:
                if staging not in held:
                    return staging
            self._returned.get()  # a token may be stale, so look again


class _Lease:
    """Staging memory of one save, until one thread has written the save or it is given up."""

    def __init__(self, staging: HostStaging) -> None:
        self.staging = staging
        self._taken_by: dict[str, int | None] = {}

    def is_taken(self) -> bool:
        """Take it for the present thread, which releases it; False where it was given up."""
        me = threading.get_ident()
        return self._taken_by.setdefault("thread", me) == me

    def is_given_up(self) -> bool:
        """Give it up for good; False where another thread has taken it, and releases it."""
        return self._taken_by.setdefault("thread", None) in (None, threading.get_ident())
