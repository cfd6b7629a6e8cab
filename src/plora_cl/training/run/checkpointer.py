"""When a run saves, what each checkpoint refers to, and which ones stay."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.naming import checkpoint_name, save_due
from plora_cl.checkpoint.format.tensor_object import encode_object, object_ref
from plora_cl.checkpoint.format.trajectory import Trajectory, begun
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.snapshot.snapshot import Snapshot, json_copy
from plora_cl.checkpoint.snapshot.staging import HostArena
from plora_cl.checkpoint.snapshot.writer import Writer
from plora_cl.checkpoint.store.branches import started_afresh
from plora_cl.checkpoint.store.replacement import complete
from plora_cl.checkpoint.store.retention import rotate, tidy
from plora_cl.checkpoint.store.retiring import commit, retire
from plora_cl.checkpoint.store.space import keep_within, shortage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.compute.environment import FACTS
from plora_cl.errors import CheckpointError
from plora_cl.impact import Impact
from plora_cl.state import Cursor, StateDict, Stateful, TensorPart
from plora_cl.training.reporting import SAVED, Reporter, standing
from plora_cl.training.run.phase_constants import Moment

_SNAPSHOTS_UNDER_WAY = 2


def begin_hashing(part: TensorPart) -> Future[ObjectRef]:
    """Hash tensors that stay as they are on a thread, while tasks and a checkpoint are read."""
    thread = ThreadPoolExecutor(1, "hashing")
    reference = thread.submit(lambda: object_ref(part.state_dict()))
    thread.shutdown(wait=False)
    return reference


class Checkpointer:
    """Saves snapshots of one run into its store.

    The training thread notes what changes and goes on; the writer copies it, encodes, hashes and
    commits. At most one snapshot waits while another is written: a third one waits for its memory.

    Args:
        store: Where checkpoints live; None saves nothing.
        writer: Does the work of a save, in order.
        every: Optimizer steps between two saves within an epoch.
        keep_last: Checkpoints of the task in training that stay.
        disk_budget: Most that checkpoints may take, in bytes; None for no bound.
        base: The reference to the frozen encoder weights, see `begin_hashing`.
        settings: Every resolved setting, recorded in each checkpoint.
        identity: What decides the result: settings, encoder and data.
        environment: Fingerprint of the machine and the libraries.
        before_commit: Makes durable what a checkpoint relies on outside the store.
        reporter: Told about each durable checkpoint, and each one that failed.

    Attributes:
        newest: The last durable checkpoint that was saved here, or gone on from.
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
        settings: StateDict,
        identity: StateDict,
        environment: StateDict,
        before_commit: Callable[[], None],
        reporter: Reporter,
    ) -> None:
        self.store = store
        self._writer = writer
        self._every, self._keep_last, self._disk_budget = every, keep_last, disk_budget
        self._settings, self.identity = json_copy(settings), json_copy(identity)
        self.environment = json_copy(environment)
        self._before_commit, self._reporter = before_commit, reporter
        self._base = base
        self._arenas: queue.SimpleQueue[HostArena] = queue.SimpleQueue()
        for _ in range(_SNAPSHOTS_UNDER_WAY):
            self._arenas.put(HostArena())
        self._moment: Moment | None = None
        self._unsettled: HostArena | None = None
        self._trajectory: Trajectory | None = None
        self._is_alone = False
        self.newest: CheckpointEntry | None = None
        # The rest belongs to the writer.
        self._written: Moment | None = None
        self._refs: dict[str, ObjectRef] = {}
        self._failure: CheckpointError | None = None
        self._told_of_shortage_in: int | None = None

    @property
    def enabled(self) -> bool:
        """Whether checkpoints are written at all."""
        return self.store is not None

    @property
    def base_digest(self) -> str:
        """SHA-256 of the frozen encoder weights."""
        return self._base.result().sha256

    def is_base(self, digest: str) -> bool:
        """Tell whether ``digest`` is that of the frozen encoder weights."""
        return digest == self.base_digest

    @property
    def trajectory(self) -> Trajectory:
        """What is being computed.

        Raises:
            CheckpointError: The directory of the checkpoints cannot be listed.
        """
        if self._trajectory is None:
            facts = {
                "identity": self.identity,
                "environment": {
                    name: value
                    for name, value in self.environment.items()
                    if FACTS[name] is Impact.TRAJECTORY
                },
                "base": self.base_digest,
            }
            identifier = begun(facts)
            self._trajectory = (
                Trajectory(identifier)
                if self.store is None
                else started_afresh(self.store, identifier)
            )
        return self._trajectory

    def go_on_with(self, trajectory: Trajectory) -> None:
        """Save what comes as checkpoints of ``trajectory``."""
        self._trajectory, self._is_alone, self._moment = trajectory, False, None

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after optimizer step ``step``."""
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
        """Save this instant; after `flush` it survives a power cut.

        Call `settle` before any tensor of ``live`` changes.

        A disk that refuses does not stop training: it is reported, earlier checkpoints stay, and
        the next save tries again.

        Args:
            cursor: What runs next.
            last_done: Epoch and batch, zero-based, of the last batch done: the file's name.
            live: Components that change from step to step.
            constant: Returns the components that changed at the latest when the phase did, or
                before `constant_changed`; asked once until then. The writer reads their tensors
                later.
            loss: Loss of the last step.
            trained_tasks: Names of the finished tasks.

        Raises:
            CheckpointError: Checkpoints are disabled.
        """
        if self.store is None:
            raise CheckpointError("checkpoints are disabled by checkpoint_every: 0")
        moment = self._moment
        if moment is None or (moment.task, moment.phase) != (cursor.task, cursor.phase.value):
            moment = self._moment = Moment.begun(cursor, constant())
        self.settle()
        arena = self._arenas.get()
        try:
            snapshot = Snapshot.capture(
                live,
                cursor=cursor.state_dict(),
                objects={},
                loss=loss,
                trained_tasks=trained_tasks,
                seed=self._settings["seed"],
                settings=self._settings,
                identity=self.identity,
                environment=self.environment,
                arena=arena,
            )
            path = self.store.directory / checkpoint_name(cursor.task, *last_done)
        except BaseException:
            self._arenas.put(arena)
            raise
        self._writer.submit(
            lambda: self._write(arena, snapshot, moment, path),
            dropped=lambda: self._arenas.put(arena),
        )
        self._unsettled = arena
        return path

    def constant_changed(self) -> None:
        """Ask for the constant components anew at the next save, although the phase is the same."""
        self._moment = None

    def settle(self) -> None:
        """Return when the tensors that were saved last may change; call it before they do.

        Most often the writer has copied them by then.

        Raises:
            CheckpointError: They have changed already.
        """
        if self._unsettled is not None:
            arena, self._unsettled = self._unsettled, None
            arena.settle()

    def flush(self) -> None:
        """Return when every save is durable.

        Raises:
            CheckpointError: The last one is not, for a reason that was reported.
        """
        self._writer.flush()
        if self._failure is not None:
            raise self._failure

    def tidy(self, entry: CheckpointEntry) -> None:
        """Apply retention as the process that saved ``entry`` would have, had it gone on.

        Raises:
            CheckpointError: The disk refused.
        """
        if self.store is not None and self.store.holds(entry):
            tidy(self.store, entry, self._keep_last)
            self.newest = entry

    def _write(self, arena: HostArena, snapshot: Snapshot, moment: Moment, path: Path) -> None:
        assert self.store is not None
        try:
            arena.settle()
            arena.wait()
            self._before_commit()
            self._store_constant(self.store, moment)
            trajectory = self.trajectory
            data = encode(replace(snapshot, objects=self._refs, trajectory=trajectory))
            self._tell_of_shortage(self.store, moment.task, len(data))
            entry = commit(self.store, path.name, data)
        except (CheckpointError, OSError, MemoryError) as error:
            self._written, self._refs = None, {}  # whatever is gone is put again next time
            self._failure = CheckpointError(f"no checkpoint {path}: {error}")
            self._reporter.message(f"Warning: {self._failure}; the next save, if any, tries again")
            return
        finally:
            self._arenas.put(arena)
        self._failure, self.newest = None, entry
        self._reporter.message(f"{SAVED}{entry.path} ({standing(snapshot.cursor)})")
        try:
            complete(self.store, entry)
            if not self._is_alone:
                retire(self.store)
                self._is_alone = True
            rotate(self.store, entry, self._keep_last)
            if self._disk_budget is not None:
                keep_within(self.store, entry, self._disk_budget)
        except CheckpointError as error:
            self._reporter.message(f"Warning: old checkpoints were not removed: {error}")

    def _tell_of_shortage(self, store: CheckpointStore, task: int, checkpoint_bytes: int) -> None:
        if task == self._told_of_shortage_in:
            return
        self._told_of_shortage_in = task
        line = shortage(
            store, task=task, checkpoint_bytes=checkpoint_bytes, keep_last=self._keep_last
        )
        if line is not None:
            self._reporter.message(f"Warning: {line}")

    def _store_constant(self, store: CheckpointStore, moment: Moment) -> None:
        if moment is self._written:
            return
        written = self._written
        self._refs = {
            name: self._refs[name]
            if written is not None and written.has(name, moment)
            else self._stored(store, name, part)
            for name, part in moment.constant.items()
        }
        self._written = moment

    def _stored(self, store: CheckpointStore, name: str, part: TensorPart) -> ObjectRef:
        if name != "model/base":
            return store.objects.put(encode_object(part.state_dict()))
        ref = self._base.result()
        store.objects.ensure(ref, lambda: encode_object(part.state_dict()))
        return ref
