"""`CheckpointManager`: what `plora-cl train` has, for any PyTorch loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, SupportsFloat, SupportsIndex

from plora_cl.checkpoint.calls import Calls, at_least, one_at_a_time, require_components
from plora_cl.checkpoint.differences import differences
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.checkpoint.module_parts import device_of
from plora_cl.checkpoint.snapshot.committer import Committer, LogsSaves
from plora_cl.checkpoint.snapshot.compatibility import (
    Acceptance,
    SettingChange,
    require_acceptable,
)
from plora_cl.checkpoint.snapshot.constants import HashedConstants, Tensors
from plora_cl.checkpoint.snapshot.loading import Resumable, load, newest_usable
from plora_cl.checkpoint.snapshot.saver import Saver, first_trajectory
from plora_cl.checkpoint.snapshot.snapshot import RunFacts, Snapshot, json_copy
from plora_cl.checkpoint.snapshot.writer import BackgroundWriter, InPlaceWriter, Writer
from plora_cl.checkpoint.store.branches import continuation
from plora_cl.checkpoint.store.preconditions import require_startable
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.compute.environment import deciding, environment
from plora_cl.errors import CheckpointError, ExperimentExistsError
from plora_cl.plain_numbers import plain_loss
from plora_cl.state import Cursor, Phase, RandomState, Stateful
from plora_cl.wording import counted

log = logging.getLogger(__name__)

_RANDOM = "random"
_MOST_STEPS = 10**18  # what fits in the name of a checkpoint
_REFUSED = "restore them, or start in another folder; accept_changes does not help here"
_ACCEPTING = "restore them, or call resume(accept_changes=True)"


class CheckpointManager:
    """Saves and resumes a training loop, to the bit, whenever it is killed.

    The experiment folder is locked from the construction to `close`; use it in a ``with``
    statement::

        with CheckpointManager("runs/demo", {"model": model, "optimizer": optimizer}) as manager:
            for step in range(manager.resume(), 1000):
                train_on(batches[step])
                manager.save(step + 1)

    Methods are for one thread, and not for signal handlers: let a handler set a flag, and save in
    the loop. In a child made by ``os.fork`` `close` does nothing, and the other methods raise.

    The random generators of Python, NumPy, PyTorch and every CUDA device are saved and restored
    too, as the component ``random``.

    Args:
        folder: Of the experiment; made if it is not there.
        components: By name all that changes: anything with ``state_dict`` and ``load_state_dict``,
            such as modules, optimizers, schedules, gradient scalers and stateful data loaders.
            States hold tensors, numbers, strings, booleans, None, and dicts and lists of those.
        constants: By name tensors that never change. They are stored once, shared by all
            checkpoints, and compared by content where a run is resumed, in `flush` and in `close`.
            See `split_module`.
        identity: What decides the result and is in no component, such as hyperparameters and a
            digest of the data: plain JSON. A checkpoint with another one is refused.
        keep_last: Newest checkpoints that stay, at least 1. With 2 or more a damaged newest one
            costs the steps since the one before it.
        disk_budget: Most bytes that checkpoints may take, at least 1; None for no bound.
        background: Encode, hash and write on a thread, while training continues.

    Raises:
        ExperimentLockedError: Another process, or manager, writes to ``folder``.
        ValueError: There is no component, a name is reserved, empty or has a slash, ``keep_last``
            or ``disk_budget`` is below 1, or ``identity`` is not finite.
        TypeError: ``identity`` is not plain JSON with str keys, a constant cannot be stored, or
            ``keep_last`` or ``disk_budget`` is no integer.
        CheckpointError: The disk refused, or no checkpoint can hold ``identity``.
    """

    def __init__(
        self,
        folder: str | Path,
        components: Mapping[str, Stateful],
        *,
        constants: Mapping[str, Tensors] | None = None,
        identity: Mapping[str, Any] | None = None,
        keep_last: int = 2,
        disk_budget: int | None = None,
        background: bool = True,
    ) -> None:
        require_components(components, reserved=_RANDOM)
        keep_last = at_least("keep_last", keep_last, 1)
        disk_budget = None if disk_budget is None else at_least("disk_budget", disk_budget, 1)
        self.folder = Path(folder).absolute()  # the loop may change its working directory
        self._components: dict[str, Stateful] = {**components, _RANDOM: RandomState()}
        self._constants = HashedConstants({} if constants is None else constants)
        facts = RunFacts.recorded(
            seed=0,
            settings={},
            identity={} if identity is None else identity,
            environment={},  # read when the run begins
        )
        self._calls = Calls(self.folder)
        self._lock = ExperimentLock.acquire(self.folder)
        self._store = CheckpointStore(self.folder / "checkpoints", self._lock.filesystem)
        self._committer = Committer(
            self._store,
            hashed=self._constants.refs,
            keep_last=keep_last,
            disk_budget=disk_budget,
            before_commit=self._lock.require_held,
            listener=LogsSaves(),
        )
        writer: Writer = BackgroundWriter() if background else InPlaceWriter()
        self._saver = Saver(self._committer, writer, facts, copies_at_once=True)
        self._trajectory: Trajectory | None = None
        self._step = 0

    @one_at_a_time
    def resume(
        self, source: Literal["auto"] | str | Path = "auto", *, accept_changes: bool = False
    ) -> int:
        """Restore every component and the random generators; return the steps that were done.

        Build components as for a new run before. The newest checkpoint that is not damaged is
        taken, and a warning names each one that is skipped. Without any checkpoint nothing is
        restored and 0 returned.

        Args:
            source: A checkpoint file in place of the newest one. Checkpoints ahead of it in the
                folder are moved aside, unless the run will compute the same ones again.
            accept_changes: Resume although `identity`, libraries or the machine differ.

        Raises:
            CorruptCheckpointError: There are checkpoints and every one is damaged.
            CheckpointNotFoundError: ``source`` is not there, or only retired checkpoints are.
            IncompatibleCheckpointError: Constants, components or shapes are not the same; or
                identity, libraries or machine are not, and ``accept_changes`` is False. Components
                are restored in part where one of them refuses its state; `save` raises then.
            CheckpointError: A component does not hold what was loaded, or a constant was changed.
        """
        self._saver.flush()
        self._constants.require_unchanged()
        require_startable(self._store, resume=source, overwrite=False)
        resumable = self._resumable(source)
        self._read_environment()
        if resumable is None:
            self._calls.require_whole()
            self._trajectory = self._begin()
            return 0
        snapshot, entry = resumable.snapshot, resumable.entry
        changes = self._accepted(snapshot, accept=accept_changes)
        following = continuation(
            self._store,
            entry,
            resumable.manifest,
            [change.recorded() for change in changes],
            by_choice=any(not change.key.startswith("environment.") for change in changes),
        )
        live = RandomState().state_dict()["cuda"]
        moved = snapshot.with_moved_generators(live, self._saver.facts.environment)
        with self._calls.restoring():
            moved.restore(self._components)
        self._trajectory = following.trajectory
        step = self._step = int(snapshot.cursor["step"])
        if following.is_branch:
            entry = CheckpointEntry.at(self._save(step, loss=snapshot.loss))
            self._saver.flush()
        self._committer.tidy(entry)
        return step

    @one_at_a_time
    def save(self, step: SupportsIndex, *, loss: SupportsFloat | None = None) -> Path:
        """Save this instant and return its path; `flush` waits until it survives a power cut.

        Components may change as soon as this returns. A disk that refuses does not stop training:
        a warning is logged, earlier checkpoints stay, and the next save tries again.

        Args:
            step: Steps that were done, 1 or more, never fewer than before; `resume` returns it.
            loss: Of the last step, shown by ``plora-cl checkpoints list``.

        Raises:
            ExperimentExistsError: The folder holds checkpoints and `resume` was not called.
            ExperimentMovedError: The folder was moved or replaced; also raised by later calls.
            CheckpointError: A constant was written to (`flush` and `close` notice writes that this
                call does not); no checkpoint can hold the state of this save, or of one before; the
                last `resume` failed halfway; or the manager is closed.
            TypeError: A state holds neither tensors nor plain values, and the message names where;
                ``step`` is no integer, or ``loss`` no number.
            ValueError: ``step`` is below 1, has more than 18 digits, or is below that of the last
                save or of the checkpoint that was resumed from.
        """
        step = at_least("step", step, max(1, self._step))
        if step >= _MOST_STEPS:
            raise ValueError(f"step is {step}; expected at most {_MOST_STEPS - 1}")
        path = self._save(step, loss=plain_loss(loss))
        self._step = step
        return path

    def _save(self, step: int, *, loss: float | None) -> Path:
        self._calls.require_whole()
        self._constants.require_unchanged()
        if self._trajectory is None:
            if there := self._store.everything():
                raise ExperimentExistsError(
                    f"{self._store.directory} already holds {counted(len(there), 'checkpoint')}: "
                    "call resume() before the first save, or use another folder"
                )
            self._read_environment()
            self._trajectory = self._begin()
        cursor = Cursor(task=0, phase=Phase.TRAIN, epoch=0, batch=step, step=step)
        return self._saver.save(
            (0, max(step - 1, 0)),
            self._components,
            self._constants.saved(),
            cursor=cursor.state_dict(),
            trained_tasks=(),
            loss=loss,
            trajectory=self._trajectory,
        )

    @one_at_a_time
    def flush(self) -> None:
        """Return when every save is durable.

        Constants are read and hashed again where there was a save since the last time.

        Raises:
            CheckpointError: The last one is not, for a reason that was logged; or a constant was
                written to.
            Exception: Not the disk has failed a save, and no later one is durable.
        """
        self._flush()

    def close(self) -> None:
        """Make every save durable, as `flush` does, and release the folder; once.

        Raises:
            CheckpointError: As `flush`.
        """
        if not self._calls.is_forked and not self._calls.is_closed:
            self._close()

    @one_at_a_time
    def _close(self) -> None:
        try:
            self._flush()
        finally:
            self._calls.is_closed = True
            self._lock.release()

    def _flush(self) -> None:
        self._saver.flush()
        self._constants.require_saved_unchanged()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        with suppress(*([] if error is None else [CheckpointError])):  # it was logged
            self.close()

    def _resumable(self, source: str | Path) -> Resumable | None:
        def is_known(digest: str) -> bool:
            return digest in self._constants.digests().values()

        if source == "auto":
            return newest_usable(self._store, is_known=is_known)
        path = Path(source)
        return load(CheckpointStore(path.parent), CheckpointEntry.at(path), is_known=is_known)

    def _read_environment(self) -> None:
        """Note what the run is computed with: a loop may set threads after it makes the manager."""
        parts = [*self._components.values(), *self._constants.parts.values()]
        facts = environment(device=device_of(parts))
        self._saver.facts = replace(self._saver.facts, environment=json_copy(facts, "environment"))

    def _begin(self) -> Trajectory:
        facts = {
            "identity": self._saver.facts.identity,
            "environment": deciding(self._saver.facts.environment),
            "constants": self._constants.digests(),
        }
        return first_trajectory(self._store, facts)

    def _accepted(self, snapshot: Snapshot, *, accept: Acceptance) -> list[SettingChange]:
        """Return how this run differs from ``snapshot``, if it may be resumed all the same."""
        changes = differences(snapshot, self._saver.facts, self._constants.digests())
        for change in changes:
            log.info("%s: %s", self.folder, change)
        return require_acceptable(
            changes, accept=accept, shape_settings=(), way_out=_REFUSED, accepting=_ACCEPTING
        )
