"""A run that a training loop of your own drives: begin tasks, save and load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

from plora_cl.checkpoint.snapshot.loading import Resumable, load
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.config.locations import anchored
from plora_cl.config.schema import Settings, experiment_folder
from plora_cl.errors import TrainingError
from plora_cl.methods.base import ContinualMethod
from plora_cl.methods.registry import techniques
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.plain_numbers import plain_loss
from plora_cl.state import Cursor, StateDict, Stateful
from plora_cl.training.build import build_run
from plora_cl.training.own_methods import require_distinct_names
from plora_cl.training.reporting import Reporter
from plora_cl.training.resuming import StateHolder, restore_run
from plora_cl.training.run.own_folder import OwnFolder
from plora_cl.training.run.run import Run
from plora_cl.training.run.stage import Stage
from plora_cl.training.stopping import StopRequest


class OwnLoop:
    """The half of `CLTrainer` that a training loop of your own calls.

    Attributes:
        settings: Every resolved setting.
        undone: The last sequence ended before it had changed or saved anything: its folder holds
            what it held before.
    """

    def _begin(
        self,
        settings: Settings,
        reporter: Reporter | None,
        stop: StopRequest | None,
        methods: Sequence[ContinualMethod],
        *,
        progress: bool,
    ) -> None:
        # Absolute paths: the working directory may be another one when the run is resumed
        self.settings, self._reporter = anchored(settings), reporter or Reporter()
        self._stop = stop or StopRequest()
        built_in = {technique.name for technique in techniques()}
        self._methods = require_distinct_names(methods, built_in)
        self._given, self._progress = reporter, progress
        self._run: Run | None = None
        self._own = OwnFolder(self.folder)
        self.undone = False

    @property
    def folder(self) -> Path:
        """The folder of the experiment."""
        return experiment_folder(self.settings)

    @property
    def run(self) -> Run:
        """The run, built at the first access.

        The random generators of the process begin at its seed, unless another run is learning.
        """
        if self._run is None:
            self._run = self._new_run()
            self._run.components.random.hand_over()
        return self._run

    def _new_run(self) -> Run:
        told = (self._reporter, self._stop)
        return build_run(self.settings, *told, self._own.disk, methods=self._methods)

    @property
    def model(self) -> ContinualClassifier:
        """The model, with the adapters and heads of the tasks begun so far."""
        return self.run.model

    @property
    def stage(self) -> Stage:
        """The task in training with its batches; in joint training all tasks."""
        return self.run.components.stage

    @property
    def cursor(self) -> Cursor:
        """The next task, epoch and batch, zero-based, and the steps taken (in own loops: batches).

        `begin_task`, `save_checkpoint` and `load_checkpoint` set it.
        """
        return replace(self.run.components.cursor)

    def begin_task(self) -> Stage:
        """Add what the next task needs to the model; return the task with its batches.

        For a training loop of your own; joint training begins all tasks at once.

        Raises:
            TrainingError: Every task has begun.
        """
        parts = self.run.components
        if parts.optimization is not None:
            if parts.cursor.task == len(parts.tasks) - 1:
                raise TrainingError("every task has begun; none is left")
            parts.cursor.next_task()
        parts.begin_task()
        return parts.stage

    def _read(self, path: Path) -> Resumable:
        store, is_known = CheckpointStore(path.parent), self.run.checkpointer.is_base
        return load(store, CheckpointEntry.at(path), is_known=is_known)

    def save_checkpoint(
        self,
        *,
        task_idx: SupportsIndex,
        epoch: SupportsIndex,
        batch_idx: SupportsIndex,
        optimizer: Stateful,
        scheduler: Stateful,
        loss: SupportsFloat | None = None,
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
            ExperimentExistsError: The folder holds checkpoints of another trainer.
            TypeError: An index is no integer, or ``loss`` is no number.
        """
        given = {"optimizer": optimizer, "scheduler": scheduler}
        with self._own.locked(for_a_save=True) as is_learning:
            step = self.run.components.cursor.step
            cursor, number = Cursor.in_training(task_idx, epoch, batch_idx, step), plain_loss(loss)
            return self.run.save_at(cursor, given, loss=number, is_learning=is_learning)

    def get_latest_checkpoint(self) -> Path | None:
        """Return the checkpoint that ``resume=True`` takes, or None without any.

        Raises:
            CorruptCheckpointError: There are checkpoints and every one is damaged.
            CheckpointError: The newest one cannot be used for another reason.
        """
        entry = resume_point(CheckpointStore(self.folder / "checkpoints"))
        return None if entry is None else entry.path

    def load_checkpoint(
        self, path: str | Path, *, accept_changes: bool = False
    ) -> tuple[StateDict, StateDict]:
        """Load ``path`` into the model, every other component, and the generators of the process.

        Args:
            path: The checkpoint.
            accept_changes: As for `train_sequence`; the states returned stay as they were saved.

        Returns:
            The states of the optimizer and of the scheduler, for ``load_state_dict``.

        `run` and `model` are new objects afterwards if a later task had begun.

        Raises:
            CorruptCheckpointError: A byte of the checkpoint or of its objects is wrong.
            IncompatibleCheckpointError: As for `train_sequence`.
        """
        given = {"optimizer": StateHolder(), "scheduler": StateHolder()}
        there = self._own.checkpoints()  # what is written from here on is of another trainer
        resumable, run = self._read(Path(path)), self.run
        if run.model.tasks > resumable.snapshot.cursor["task"] + 1:
            run = self._new_run()  # without what later tasks added
        restore_run(resumable, run, self.settings, accept=accept_changes, in_place_of=given)
        run.components.random.hand_over()
        self._run = run
        self._own.continue_from(there)
        return given["optimizer"].state_dict(), given["scheduler"].state_dict()
