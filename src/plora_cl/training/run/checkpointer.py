"""When a run saves, and which of its components are constant while a phase lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from plora_cl.checkpoint.format.manifest import BASE_WEIGHTS, ObjectRef
from plora_cl.checkpoint.format.naming import save_due
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.checkpoint.snapshot.committer import Committer
from plora_cl.checkpoint.snapshot.constants import Constants
from plora_cl.checkpoint.snapshot.saver import Saver, first_trajectory
from plora_cl.checkpoint.snapshot.snapshot import RunFacts
from plora_cl.checkpoint.snapshot.writer import Writer
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.compute.environment import deciding
from plora_cl.errors import CheckpointError
from plora_cl.state import Cursor, Phase, StateDict, Stateful, TensorPart
from plora_cl.training.reporting import Reporter, standing


class Checkpointer:
    """Saves one run into its store, with the `Saver` that every loop can use.

    Args:
        store: Where checkpoints live; None saves nothing.
        writer: Does the work of a save, in order.
        every: Optimizer steps between two saves within an epoch.
        keep_last: Checkpoints of the task in training that stay.
        disk_budget: Most that checkpoints may take, in bytes; None for no bound.
        base: The reference to the frozen encoder weights, see `begin_hashing`.
        facts: What each checkpoint says of the run.
        before_commit: Makes durable what a checkpoint relies on outside the store.
        reporter: Told about each durable checkpoint, and each one that failed.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        *,
        writer: Writer,
        every: int,
        keep_last: int,
        disk_budget: int | None,
        base: Future[ObjectRef],
        facts: RunFacts,
        before_commit: Callable[[], None],
        reporter: Reporter,
    ) -> None:
        self.store, self.facts = store, facts
        self._every, self._base, self._writer = every, base, writer
        self._committer: Committer | None = None
        self._saver: Saver | None = None
        if store is not None:
            self._committer = Committer(
                store,
                hashed={BASE_WEIGHTS: base},
                keep_last=keep_last,
                disk_budget=disk_budget,
                before_commit=before_commit,
                listener=_Announcements(reporter),
            )
            self._saver = Saver(self._committer, writer, facts)
        self._constants: Constants | None = None
        self._constant_in: tuple[int, Phase] | None = None
        self._trajectory: Trajectory | None = None

    @property
    def newest(self) -> CheckpointEntry | None:
        """The last durable checkpoint that was saved here, or resumed from; `flush` before."""
        return None if self._committer is None else self._committer.newest

    @property
    def base_digest(self) -> str:
        """SHA-256 of the frozen encoder weights."""
        return self._base.result().sha256

    def is_base(self, digest: str) -> bool:
        """Return whether ``digest`` is that of the frozen encoder weights."""
        return digest == self.base_digest

    @property
    def trajectory(self) -> Trajectory:
        """What is being computed.

        Raises:
            CheckpointError: The directory of the checkpoints cannot be listed.
        """
        if self._trajectory is None:
            facts = {
                "identity": self.facts.identity,
                "environment": deciding(self.facts.environment),
                "base": self.base_digest,
            }
            self._trajectory = first_trajectory(self.store, facts)
        return self._trajectory

    def continue_on(self, trajectory: Trajectory) -> None:
        """Save the following checkpoints as ones of ``trajectory``."""
        self._trajectory, self._constants = trajectory, None

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after optimizer step ``step``."""
        return save_due(step, self._every)

    def save(
        self,
        cursor: Cursor,
        last_done: tuple[int, int],
        live: Mapping[str, Stateful],
        constant: Callable[[], Mapping[str, TensorPart]],
        *,
        loss: float | None,
        trained_tasks: Sequence[str],
    ) -> Path:
        """Save this instant; see `Saver.save`.

        Args:
            cursor: What runs next.
            last_done: Epoch and batch, zero-based, of the last batch done: the file's name.
            live: Components that change from step to step.
            constant: Returns the components that changed at the latest when the phase did, or
                before `constant_changed`; called once until then.
            loss: Loss of the last step.
            trained_tasks: Names of the finished tasks.

        Raises:
            CheckpointError: Checkpoints are disabled.
        """
        if self._saver is None:
            raise CheckpointError(
                "checkpoints are disabled (checkpoint_every: 0); set it to 1 or more to save"
            )
        phase = (cursor.task, cursor.phase)
        if self._constants is None or phase != self._constant_in:
            self._constants, self._constant_in = Constants.noted(constant()), phase
        return self._saver.save(
            last_done,
            live,
            self._constants,
            cursor=cursor.state_dict(),
            trained_tasks=trained_tasks,
            loss=loss,
            trajectory=self.trajectory,
        )

    def constant_changed(self) -> None:
        """Read the constant components again at the next save, although the phase is the same."""
        self._constants = None

    def settle(self) -> None:
        """Return when the tensors that were saved last may change; see `Saver.settle`."""
        if self._saver is not None:
            self._saver.settle()

    def flush(self) -> None:
        """Return when every save, and every other job of the writer, is done.

        Raises:
            CheckpointError: The last save is not durable, for a reason that was reported.
        """
        if self._saver is None:
            self._writer.flush()
        else:
            self._saver.flush()

    def tidy(self, entry: CheckpointEntry) -> None:
        """Do for ``entry`` what the process that saved it may have been killed before.

        Raises:
            CheckpointError: The disk refused.
        """
        if self._committer is not None:
            self._committer.tidy(entry)


class _Announcements:
    """Tells a reporter how saves end."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def saved(self, entry: CheckpointEntry, cursor: StateDict, /) -> None:
        """See `SaveListener`."""
        self._reporter.checkpoint_saved(entry.path, standing(cursor))

    def warn(self, text: str, /) -> None:
        """See `SaveListener`."""
        self._reporter.message(f"Warning: {text}")
