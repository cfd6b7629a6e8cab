"""`CLTrainer`: the public way to train, save and resume."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from plora_cl.checkpoint.snapshot.loading import Resumable, newest_usable
from plora_cl.checkpoint.store.preconditions import require_startable
from plora_cl.checkpoint.store.replacement import complete, recover, set_aside
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.loading import load_recorded_settings, require_settings
from plora_cl.config.precedence import validate
from plora_cl.config.schema import Settings
from plora_cl.errors import CheckpointError
from plora_cl.methods.base import ContinualMethod
from plora_cl.state import StateDict
from plora_cl.training.finishing import finish_run
from plora_cl.training.own_loop import OwnLoop
from plora_cl.training.progress import shown
from plora_cl.training.reporting import Reporter
from plora_cl.training.resuming import resume_run
from plora_cl.training.stopping import StopRequest


class CLTrainer(OwnLoop):
    """Learns a stream of tasks and can be stopped at any instant.

    Keyword arguments are the settings of the YAML file::

        trainer = CLTrainer(experiment_name="custom", checkpoint_every=50)
        results = trainer.train_sequence(resume="auto")

    `train_sequence` learns all tasks. A training loop of your own begins each with `begin_task`,
    and calls `save_checkpoint` and `load_checkpoint`. Models and tasks are loaded at first use.

    Args:
        methods: Methods of your own, applied after those that the settings switch on. Each run
            learns with a copy of them; `ContinualMethod.hyperparameters` is part of its identity.
        reporter: Receives the progress.
        stop: Polled between units of work.
        progress: Show the progress as ``plora-cl train`` does, where there is no ``reporter``.
        settings: As in the YAML file. A task may also be ``{"name": ..., "train": ..., "test":
            ...}`` with a pandas frame, a ``datasets.Dataset`` or a list of mappings for each split.

    Attributes:
        settings: Every resolved setting.
        undone: The last sequence ended before it had changed or saved anything: its folder holds
            what it held before.

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
        progress: bool = False,
        **settings: Any,
    ) -> None:
        self._begin(validate(settings), reporter, stop, methods, progress=progress)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        methods: Sequence[ContinualMethod] = (),
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
        progress: bool = False,
    ) -> Self:
        """Return a trainer for resolved settings; the other arguments are those of the class."""
        trainer = cls.__new__(cls)
        checked = require_settings(settings)
        trainer._begin(checked, reporter, stop, methods, progress=progress)
        return trainer

    @classmethod
    def from_experiment(
        cls,
        folder: str | Path,
        *,
        methods: Sequence[ContinualMethod] = (),
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
        progress: bool = False,
        **changes: Any,
    ) -> Self:
        """Return a trainer for an experiment that ``train_sequence(resume=True)`` continues.

        Args:
            folder: Of the experiment, which may have been moved.
            methods: Those that it was begun with; this and the next three are as for the class.
            reporter: Receives the progress.
            stop: Polled between units of work.
            progress: Show the progress.
            changes: Settings in place of recorded ones, such as ``tasks`` that were passed as data.

        Raises:
            CheckpointNotFoundError: There is no checkpoint in the folder.
            CheckpointError: Its record is lost, and no checkpoint can be read.
            SettingsError: The record, or a change, is unknown, ill-typed or contradictory.
        """
        settings = load_recorded_settings(folder, **changes)
        return cls.from_settings(
            settings, methods=methods, reporter=reporter, stop=stop, progress=progress
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
            resume: True resumes from the newest usable checkpoint, ``"auto"`` does so if there is
                one, a path takes that checkpoint, False starts afresh.
            overwrite: Replace an earlier run. It stays, whole, until the first checkpoint of this
                one is durable, and is restored if this one ends before.
            accept_changes: Resume although the settings, the data or the machine differ from those
                of the checkpoint in a way that changes the result. The run log records it.

        Raises:
            RunStoppedError: That was requested; the run can be resumed to the bit.
            CheckpointNotFoundError: There is nothing to resume from.
            ExperimentExistsError: The folder holds checkpoints, and neither ``resume`` nor
                ``overwrite`` was given, or some are pinned.
            IncompatibleCheckpointError: The checkpoint was made with other settings, data or
                libraries, which was not accepted or cannot be.
            ExperimentLockedError: Another process, or trainer, is training in the folder.
            ExperimentMovedError: The folder was moved, removed or replaced meanwhile.
            OutputError: The disk refused a file other than a checkpoint.
        """
        own = shown(self._given, progress=self._progress)
        with self._own.locked(), own as self._reporter:
            return self._train_locked(resume, overwrite, accept_changes)

    def _train_locked(self, resume: bool | str | Path, overwrite: bool, accept: bool) -> StateDict:
        store = CheckpointStore(self.folder / "checkpoints", self._own.disk)
        recover(store)
        require_startable(store, resume=resume, overwrite=overwrite)
        self._run, self.undone = None, True  # a sequence starts from fresh components
        run = self.run
        # All that can be refused is refused before anything of an earlier run is touched
        resumable = self._resumable(store, resume)
        self._stop.begin()
        self.undone = False
        if resumable is not None:
            resume_run(resumable, run, self.settings, accept=accept)
        try:
            if resumable is None:
                set_aside(store)
                collect_garbage(store)
            results = finish_run(run, self.settings, resumed=resumable is not None)
        except BaseException:
            with suppress(CheckpointError):  # the next start tries again
                self.undone = recover(store)
            if self.undone:
                self._reporter.message(
                    f"{self.folder}: the new run has saved nothing; the earlier one is there again"
                )
            raise
        complete(store, None)
        return results

    def _resumable(self, store: CheckpointStore, resume: bool | str | Path) -> Resumable | None:
        if not resume:
            return None
        if resume is True or resume == "auto":
            return newest_usable(store, is_known=self.run.checkpointer.is_base)
        return self._read(Path(resume))
