"""`CLTrainer`: the public way to run, save and resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from plora_cl.checkpoint.snapshot.loading import Resumable, load, newest_usable
from plora_cl.checkpoint.store.output_files import recording, retire_results, write_output
from plora_cl.checkpoint.store.preconditions import require_startable
from plora_cl.checkpoint.store.replacement import complete, recover, set_aside
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.fork import accepted_by_fork
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.config.locations import RECORD, anchored
from plora_cl.config.precedence import dump, validate
from plora_cl.config.record import record
from plora_cl.config.schema import Settings, experiment_folder
from plora_cl.errors import CheckpointError
from plora_cl.evaluation.measurement import FinalScores
from plora_cl.methods.base import ContinualMethod
from plora_cl.state import Cursor, Phase, StateDict, Stateful
from plora_cl.training.build import BUILT_IN, build_run
from plora_cl.training.own_methods import require_distinct_names
from plora_cl.training.publishing import publish
from plora_cl.training.reporting import Reporter, SilentReporter
from plora_cl.training.resuming import Held, go_on_from, log_changes
from plora_cl.training.run.own_folder import OwnFolder
from plora_cl.training.run.run import Run
from plora_cl.training.stopping import StopRequest


class CLTrainer:
    """Learns a stream of tasks and can be stopped at any instant.

    Keyword arguments are the settings of the YAML file::

        trainer = CLTrainer(experiment_name="custom", checkpoint_every=50)
        results = trainer.train_sequence(resume="auto")

    Models and tasks are loaded when they are first needed.

    Args:
        methods: Methods of your own, applied after those that the settings switch on. Each run
            learns with a copy of them; `ContinualMethod.hyperparameters` is part of its identity.
        reporter: Told about progress.
        stop: Polled between units of work.
        settings: As in the YAML file.

    Attributes:
        settings: Every resolved setting.
        undone: The last sequence ended before it had changed or saved anything, so that what was
            in its folder before is there again.

    Raises:
        SettingsError: A setting is unknown, ill-typed or contradicts another one.
        MethodError: Two methods have the same name, or one the name of a built-in method.
    """

    def __init__(
        self,
        *,
        methods: Sequence[ContinualMethod] = (),
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
        **settings: Any,
    ) -> None:
        self._begin(validate(settings), reporter, stop, methods)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        methods: Sequence[ContinualMethod] = (),
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
    ) -> Self:
        """Return a trainer for resolved settings; the other arguments are those of the class."""
        trainer = cls.__new__(cls)
        trainer._begin(settings, reporter, stop, methods)
        return trainer

    def _begin(
        self,
        settings: Settings,
        reporter: Reporter | None,
        stop: StopRequest | None,
        methods: Sequence[ContinualMethod],
    ) -> None:
        # The working directory may be another one when the run goes on.
        self.settings, self._reporter = anchored(settings), reporter or SilentReporter()
        self._stop = stop or StopRequest()
        self._methods = require_distinct_names(methods, BUILT_IN)
        self._run: Run | None = None
        self._own = OwnFolder(self.folder)
        self.undone = False

    @property
    def folder(self) -> Path:
        """The folder of the experiment."""
        return experiment_folder(self.settings)

    @property
    def run(self) -> Run:
        """The run, with its model (`run.model`) and its other `Components`.

        The random generators of the process begin at its seed, unless another run is learning.
        """
        if self._run is None:
            self._run = self._new_run()
            self._run.components.random.hand_over()
        return self._run

    def _new_run(self) -> Run:
        return build_run(
            self.settings, self._reporter, self._stop, self._own.disk, methods=self._methods
        )

    def train_sequence(
        self,
        resume: bool | Literal["auto"] | str | Path = False,
        *,
        overwrite: bool = False,
        accept_changes: bool = False,
    ) -> StateDict:
        """Learn every task and return what `final_results.json` holds.

        Args:
            resume: True goes on from the newest usable checkpoint, ``"auto"`` does so if there is
                one, a path takes that checkpoint, False starts afresh.
            overwrite: Replace an earlier run. It stays, whole, until the first checkpoint of this
                one is durable, and is there again if this one ends before.
            accept_changes: Go on although the settings, the data or the machine differ from those
                of the checkpoint in a way that changes the result. It is recorded in the run log.

        Raises:
            RunStoppedError: That was asked for; resuming goes on exactly.
            CheckpointNotFoundError: Nothing to resume from.
            ExperimentExistsError: The folder holds checkpoints, and neither ``resume`` nor
                ``overwrite`` was given, or some are pinned.
            IncompatibleCheckpointError: The checkpoint was made with other settings, data or
                libraries, and that was not accepted or cannot be.
            ExperimentLockedError: Another process, or trainer, is training in the folder.
            ExperimentMovedError: The folder was moved, removed or replaced meanwhile.
            OutputError: The disk refused a file beside the checkpoints.
        """
        with self._own.locked():
            return self._train_alone(resume, overwrite=overwrite, accept=accept_changes)

    def _train_alone(
        self, resume: bool | str | Path, *, overwrite: bool, accept: bool
    ) -> StateDict:
        store = CheckpointStore(self.folder / "checkpoints", self._own.disk)
        recover(store)
        require_startable(store, resume=resume, overwrite=overwrite)
        self._run, self.undone = None, True  # a sequence starts from fresh components
        # Whatever can be refused is refused before anything of an earlier run is touched.
        run = self.run
        resumable = self._resumable(store, resume)
        self._stop.begin()
        self.undone, resumed = False, resumable is not None
        if resumable is not None:
            self._resume(resumable, accept=accept)
        try:
            if not resumed:
                set_aside(store)
                collect_garbage(store)
            results = self._run_to_its_end(run, resumed=resumed)
        except BaseException:
            with suppress(CheckpointError):  # the next start tries again
                self._undo(store)
            raise
        complete(store, None)
        return results

    def _undo(self, store: CheckpointStore) -> None:
        self.undone = recover(store)
        if self.undone:
            self._reporter.message(
                f"{self.folder}: the new run has saved nothing; the earlier one is there again"
            )

    def _run_to_its_end(self, run: Run, *, resumed: bool) -> StateDict:
        branch = run.checkpointer.trajectory.branch
        text = record(dump(self.settings), branch=branch)
        write_output(self.folder / RECORD, text, self._own.disk)
        if not resumed:
            with recording(run.components.run_log.path):
                run.components.run_log.clear()
        if run.components.finished:
            self._reporter.message(
                f"{self.folder}: all {len(run.components.tasks)} tasks are already learned; "
                "nothing to train"
            )
        final = self._learn(run)
        results = publish(run, self.folder, final)
        run.forget_scores()
        return results

    def save_checkpoint(
        self,
        *,
        task_idx: int,
        epoch: int,
        batch_idx: int,
        optimizer: Stateful,
        scheduler: Stateful,
        loss: float | None = None,
    ) -> Path:
        """Save the model and every other component as a checkpoint; return its path.

        Args:
            task_idx: Zero-based task in training.
            epoch: Zero-based epoch.
            batch_idx: Zero-based batch that was done last.
            optimizer: Its state is saved.
            scheduler: Its state is saved.
            loss: Loss of that batch.

        Raises:
            CheckpointError: There is no such batch, checkpoints are disabled, or the disk refused.
            ExperimentLockedError: Another process, or trainer, is training in the folder.
        """
        with self._own.locked():
            parts = self.run.components
            cursor = Cursor(task_idx, Phase.TRAIN, epoch, batch_idx, parts.cursor.step)
            parts.require_position(cursor)
            given = {"optimizer": optimizer, "scheduler": scheduler}
            return self._save_alone(cursor, given, loss=loss)

    def _save_alone(
        self, cursor: Cursor, given: Mapping[str, Stateful], *, loss: float | None
    ) -> Path:
        run, last_done = self.run, (cursor.epoch, cursor.batch)
        parts = run.components
        parts.random.take_over()  # the loop that calls this draws from those of the process
        loop = parts.cursor
        is_under_way = parts.optimization is not None and loop.task == cursor.task
        if is_under_way:
            parts.cursor = cursor
        else:
            parts.rebuild(cursor)
        try:
            cursor.advance(batches_per_epoch=len(parts.stream))
            cursor.phase = parts.phase_after_batch()
            path = run.checkpointer.save(
                cursor,
                last_done,
                {**parts.live(), **given},
                parts.constant,
                loss=loss,
                trained_tasks=parts.trained_tasks(),
            )
            run.checkpointer.flush()
        finally:
            if is_under_way:  # the loop that trains moves its own on
                parts.cursor = loop
        return path

    def get_latest_checkpoint(self) -> Path | None:
        """Return the checkpoint that a run would be resumed from, or None; see `resume_point`.

        Raises:
            CorruptCheckpointError: There are checkpoints and every one is damaged.
            CheckpointError: The newest one cannot be used for another reason.
        """
        entry = resume_point(CheckpointStore(self.folder / "checkpoints"))
        return entry.path if entry is not None else None

    def load_checkpoint(
        self, path: str | Path, *, accept_changes: bool = False
    ) -> tuple[StateDict, StateDict]:
        """Load ``path`` into the model, every other component, and the generators of the process.

        Args:
            path: The checkpoint.
            accept_changes: As for `train_sequence`; the states returned stay as they were saved.

        Returns:
            The states of the optimizer and of the scheduler, for ``load_state_dict``.

        `run` and its model are new ones afterwards where a later task had been begun.

        Raises:
            CorruptCheckpointError: A byte of the checkpoint or of its objects is wrong.
            IncompatibleCheckpointError: As for `train_sequence`.
        """
        optimizer, scheduler = Held(), Held()
        resumable, run = self._read(Path(path)), self.run
        if run.model.tasks > resumable.snapshot.cursor["task"] + 1:
            # What later tasks added has to go, unless the checkpoint is refused.
            run = self._new_run()
        go_on_from(
            resumable,
            run,
            self.settings,
            accept=accept_changes,
            in_place_of={"optimizer": optimizer, "scheduler": scheduler},
        )
        run.components.random.hand_over()
        self._run = run
        return optimizer.state_dict(), scheduler.state_dict()

    def _learn(self, run: Run) -> FinalScores:
        """Learn what is not learned, and measure what is published."""
        try:
            if not run.components.finished:
                run.learn()
            return run.final_scores(validation=self.settings.measure_validation)
        except BaseException:
            # What was asked to be saved is worth more than a fast exit.
            try:
                run.checkpointer.flush()
            except CheckpointError:
                self._tell_of_loss(run.checkpointer.newest)
            with suppress(OSError):
                run.sync_log()
            raise

    def _tell_of_loss(self, newest: CheckpointEntry | None) -> None:
        start = "begins anew" if newest is None else f"goes on from {newest.path}"
        self._reporter.message(
            "Warning: that save was the last one, and what was learned since the one before is "
            f"lost; the next start {start}"
        )

    def _resumable(self, store: CheckpointStore, resume: bool | str | Path) -> Resumable | None:
        if not resume:
            return None
        if resume is True or resume == "auto":
            return newest_usable(store, is_known=self.run.checkpointer.is_base)
        return self._read(Path(resume))

    def _resume(self, resumable: Resumable, *, accept: bool) -> None:
        self._reporter.message(f"Loading checkpoint from {resumable.entry.path}...")
        self._own.disk.require()  # what was loaded took its time
        accepted = accept or accepted_by_fork(self.folder, resumable.entry)
        resumed = go_on_from(resumable, self.run, self.settings, accept=accepted)
        if resumed.is_branch:
            branch = self.run.checkpointer.trajectory.branch
            with recording(self.run.components.run_log.path):
                self.run.components.run_log.set_aside(branch)
        if resumed.accepted:
            log_changes(resumed.accepted, self.run)
        entry = resumable.entry
        if resumed.is_branch:
            entry = self.run.begin_branch(entry)
        self.run.checkpointer.tidy(entry)
        branch = self.run.checkpointer.trajectory.branch
        retire_results(self.folder / "results", branch=branch, filesystem=self._own.disk)
        if not self.run.components.finished:
            cursor = self.run.components.cursor
            self._reporter.message(
                f"Checkpoint loaded! Resuming from task {cursor.task}, epoch {cursor.epoch}, "
                f"batch {cursor.batch}"
            )

    def _read(self, path: Path) -> Resumable:
        store = CheckpointStore(path.parent)
        return load(store, CheckpointEntry.at(path), is_known=self.run.checkpointer.is_base)
