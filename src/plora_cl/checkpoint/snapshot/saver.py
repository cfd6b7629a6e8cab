"""The half of a save that runs on the training thread: note what changes, and go on."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.format.trajectory import Trajectory, begun
from plora_cl.checkpoint.snapshot.committer import Committer
from plora_cl.checkpoint.snapshot.constants import Constants
from plora_cl.checkpoint.snapshot.snapshot import RunFacts, Snapshot
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.checkpoint.snapshot.writer import Writer
from plora_cl.checkpoint.store.branches import started_afresh
from plora_cl.checkpoint.store.store import CheckpointStore
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
    identifier = begun(facts)
    return Trajectory(identifier) if store is None else started_afresh(store, identifier)


class Saver:
    """Saves snapshots of one run.

    `save` notes what changes and returns. The writer copies it, and its `Committer` does the rest.
    At most one snapshot waits while another is written: a third save waits for its memory. What the
    two halves share is what a job carries: immutable values, and staging memory that belongs to one
    job at a time.

    Args:
        committer: The other half.
        writer: Runs it, in order.
        facts: What each checkpoint says of the run.
    """

    def __init__(self, committer: Committer, writer: Writer, facts: RunFacts) -> None:
        self._committer, self._writer, self._facts = committer, writer, facts
        self._free: queue.SimpleQueue[HostStaging] = queue.SimpleQueue()
        for _ in range(_SNAPSHOTS_UNDER_WAY):
            self._free.put(HostStaging())
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
        staging = self._free.get()
        try:
            snapshot = Snapshot.capture(
                live,
                objects={},
                cursor=cursor,
                trained_tasks=trained_tasks,
                loss=loss,
                facts=self._facts,
                trajectory=trajectory,
                staging=staging,
            )
        except BaseException:
            self._free.put(staging)
            raise

        def release() -> None:
            self._free.put(staging)

        self._writer.submit(
            lambda: self._committer.write(staging, snapshot, constants, path, release=release),
            dropped=release,
        )
        self._unsettled = staging
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
        """
        self._writer.flush()
        if self._committer.failure is not None:
            raise self._committer.failure
