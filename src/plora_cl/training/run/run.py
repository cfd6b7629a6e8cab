"""A run: walks tasks and phases, and saves at the instants at which everything agrees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from plora_cl.checkpoint.disk.guarded_filesystem import GuardedFilesystem
from plora_cl.checkpoint.store.store import CheckpointEntry
from plora_cl.data.notes import largest_share
from plora_cl.errors import CheckpointError, TrainingError
from plora_cl.evaluation.measurement import FinalScores, Measurement
from plora_cl.finite import StepResult, require_finite_weights
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Phase
from plora_cl.training.reporting import Reporter, TaskScore
from plora_cl.training.run.checkpointer import Checkpointer
from plora_cl.training.run.components import Components
from plora_cl.training.run.loop import train_epoch
from plora_cl.training.stopping import StopRequest
from plora_cl.units import Units

_SECONDS_BETWEEN_SAVES = 30.0
_PHASES_THAT_REMEMBER = (Phase.PREPARE, Phase.CONSOLIDATE)

_T = TypeVar("_T")


@dataclass(slots=True)
class Run:
    """Learns a stream of tasks, one after the other.

    Attributes:
        components: Everything that changes.
        measurement: Measures validation and test splits.
        checkpointer: Saves.
        reporter: Told about progress.
        stop: Polled at every instant at which the run can stop.
        disk: What it writes with; see `GuardedFilesystem`.
        clock: Seconds from any fixed origin; decides how often long work between training steps is
            saved, nothing else.
    """

    components: Components
    measurement: Measurement
    checkpointer: Checkpointer
    reporter: Reporter
    stop: StopRequest
    disk: GuardedFilesystem = field(default_factory=GuardedFilesystem)
    clock: Callable[[], float] = time.monotonic
    _saved: float = field(default=0.0, init=False)
    _has_saved_scores: bool = field(default=False, init=False)

    @property
    def model(self) -> ContinualClassifier:
        """The model."""
        return self.components.model

    def learn(self) -> None:
        """Learn every task from where the cursor stands.

        Raises:
            RunStoppedError: That was asked for; everything done so far is saved or can be redone.
            TrainingError: A loss, a penalty, a gradient, a weight or a logit is not finite.
            MethodError: A method cannot have an effect.
            DataError: The tokens of a task changed while it was learned.
            CheckpointError: The last checkpoint could not be written.
            ExperimentMovedError: The folder is not the run's any more; also raised by `save`.
        """
        with self._at_work():
            self._learn()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self.components.random.in_effect(), self.components.accelerator.in_effect():
            yield

    def _learn(self) -> None:
        parts = self.components
        self._saved = self.clock()
        if parts.optimization is None:
            parts.begin_task()
        for note in parts.methods.notes(parts.model):
            self.reporter.message(f"Note: {note}")
        while True:
            self._finish_current_task()
            if parts.finished:
                self._make_last_save_durable()
                return
            row = parts.cursor.task
            if parts.matrix.row(row)[row + 1] is None:  # appended since this task was learned
                self._go_through(
                    self.measurement.test(row, parts.tasks[row + 1], step=parts.cursor.step)
                )
            parts.cursor.next_task()
            parts.begin_task()

    def final_scores(self, *, validation: bool) -> FinalScores:
        """Return what the finished run publishes beside the matrix; `forget_scores` afterwards.

        Args:
            validation: Measure on the validation splits, too.

        Raises:
            RunStoppedError: That was asked for; what was measured is saved.
            TrainingError: A logit is not finite.
            DataError: The tokens of a split that was measured on changed.
        """
        parts, self._saved = self.components, self.clock()
        self._has_saved_scores = bool(parts.under_way)
        row = len(parts.tasks) - 1
        with self._at_work():
            found = self._go_through(
                self.measurement.at_the_end(row, parts.tasks, validation=validation)
            )
        for task in parts.tasks:  # measured on since it was learned
            task.require_unchanged()
        return found

    def forget_scores(self) -> None:
        """Take `final_scores` out of the last checkpoint, if a stop has brought them there."""
        self.components.under_way.clear()
        if self._has_saved_scores:
            self.save()
            with suppress(CheckpointError):  # it was reported, and nothing depends on it
                self.checkpointer.flush()

    def begin_branch(self, source: CheckpointEntry) -> CheckpointEntry:
        """Save a checkpoint of this instant, to which ``source`` led, and return it; durable.

        Raises:
            CheckpointError: It could not be written: nothing was changed.
        """
        position = source.position
        self.save((position.epoch, position.batch))
        self.checkpointer.flush()
        assert self.checkpointer.store is not None
        return CheckpointEntry.at(self.checkpointer.store.directory / source.name)

    def save(self, last_done: tuple[int, int] | None = None) -> None:
        """Save a checkpoint of this instant, if checkpoints are on.

        Args:
            last_done: Epoch and batch that it is named after; by default the last ones done.
        """
        self.disk.require()  # here, since what a save raises surfaces only with the next one
        parts, self._saved = self.components, self.clock()
        self._has_saved_scores = bool(parts.under_way)
        if not self.checkpointer.enabled:
            return
        with parts.costs.measure(parts.stage_name, "checkpoint"):
            self.checkpointer.save(
                parts.cursor,
                last_done or parts.last_done(),
                parts.live(),
                parts.constant,
                loss=parts.loss,
                trained_tasks=parts.trained_tasks(),
            )

    def sync_log(self) -> None:
        """Make every record of the run log durable.

        Raises:
            ExperimentMovedError: The folder is not the run's any more.
            OSError: The disk refused.
        """
        self.disk.require()
        self.components.run_log.sync()

    def _finish_current_task(self) -> None:
        actions = {
            Phase.PREPARE: self._prepare,
            Phase.TRAIN: self._train,
            Phase.VALIDATE: self._validate,
            Phase.CONSOLIDATE: self._consolidate,
            Phase.EVALUATE: self._evaluate,
        }
        parts = self.components
        cursor, name = parts.cursor, parts.stage_name
        stages = 1 if parts.model.joint else len(parts.tasks)
        self.reporter.task_started(self._stage, stages, name, *self._steps())
        while cursor.phase is not Phase.DONE:
            with parts.costs.measure(name, cursor.phase.value):
                actions[cursor.phase]()
            self.checkpointer.settle()

    @property
    def _stage(self) -> int:
        """Zero-based position of what is learned now among all that is learned in turn."""
        return 0 if self.model.joint else self.components.cursor.task

    def _steps(self) -> tuple[int, int]:
        """Return the optimizer steps of the task that are left, at most, and those done."""
        plan, cursor = self.components.plan, self.components.cursor
        per_epoch = -(-len(self.components.stream) // plan.accumulation)
        done = cursor.epoch * per_epoch + cursor.batch // plan.accumulation
        is_trained = cursor.phase not in (Phase.PREPARE, Phase.TRAIN, Phase.VALIDATE)
        return 0 if is_trained else max(plan.epochs * per_epoch - done, 0), done

    def _go_through(self, units: Units[_T]) -> _T:
        """Do long work unit by unit; save now and then, and where a stop is asked for.

        Whatever the time until the next stop is, one unit is done before it: work that is stopped
        again and again comes to its end.
        """
        with closing(units):
            while True:
                try:
                    unit = next(units)
                except StopIteration as end:
                    result: _T = end.value
                    return result
                except TrainingError as error:
                    raise self._located(error) from error
                self.reporter.activity(*unit)
                stopping = self.stop.requested
                if stopping or self.clock() - self._saved >= _SECONDS_BETWEEN_SAVES:
                    if self.components.cursor.phase in _PHASES_THAT_REMEMBER:
                        self.checkpointer.constant_changed()
                    self.save()
                    self.stop.check()
                    self.checkpointer.settle()

    def _prepare(self) -> None:
        parts = self.components
        if parts.cursor.step == 0:
            self._go_through(self.measurement.untrained(parts.tasks))
        had_units = self._go_through(parts.methods.start_task(parts.model, parts.task))
        parts.cursor.phase = Phase.TRAIN
        if had_units:
            self.save()

    def _train(self) -> None:
        parts = self.components
        assert parts.optimization is not None
        if parts.cursor.epoch >= parts.plan.epochs:  # fewer are wanted than when it began
            self._end_training()
            return
        train_epoch(
            parts.model,
            parts.optimization,
            parts.methods,
            parts.stream,
            parts.cursor,
            accumulation=parts.plan.accumulation,
            before_change=self.checkpointer.settle,
            after_batch=self._after_batch,
            after_step=self._after_step,
        )

    def _after_batch(self) -> None:
        if self.stop.requested:
            self._save_in_training()
            self.stop.check()

    def _save_in_training(self) -> None:
        """Save, unless the last step has broken the weights; no loss has seen them yet."""
        try:
            require_finite_weights(self.model.trainable())
        except TrainingError as error:
            raise self._located(error) from error
        self.save()

    def _located(self, error: TrainingError) -> TrainingError:
        """Return ``error`` with the last step that was done."""
        cursor, (epoch, batch) = self.components.cursor, self.components.last_done()
        return TrainingError(
            f"step {cursor.step} (task {cursor.task}, epoch {epoch}, batch {batch}): {error}"
        )

    def _after_step(self, result: StepResult) -> None:
        parts = self.components
        cursor = parts.cursor
        epoch, batch = parts.last_done()
        parts.loss = result.loss
        parts.costs.count(parts.stage_name, steps=1, examples=result.examples)
        position = {"step": cursor.step, "task": cursor.task, "epoch": epoch, "batch": batch}
        parts.run_log.append({"event": "step", **position, **result.record()})
        self.reporter.step(
            self._stage,
            epoch,
            parts.plan.epochs,
            batch,
            len(parts.stream),
            result.loss,
            result.examples,
        )
        epoch_ended = cursor.batch == 0
        if epoch_ended:
            cursor.phase = parts.phase_after_batch()
        stopping = self.stop.requested
        if epoch_ended or stopping or self.checkpointer.due(cursor.step):
            self._save_in_training()
        if stopping:
            self.stop.check()

    def _validate(self) -> None:
        parts = self.components
        found = self._go_through(self.measurement.validate(parts.stage, parts.cursor))
        accuracy, f1 = (sum(scores) / len(scores) for scores in zip(*found, strict=True))
        stop = parts.early_stopping.update(accuracy, f1, parts.model.trainable())
        parts.under_way.clear()
        if stop or parts.cursor.epoch >= parts.plan.epochs:
            self._end_training()
        else:
            parts.cursor.phase = Phase.TRAIN

    def _end_training(self) -> None:
        """Go on with the weights of the best epoch, if validation has chosen one."""
        parts, stopping = self.components, self.components.early_stopping
        if stopping.has_chosen:
            batch = parts.cursor.batch if parts.cursor.phase is Phase.TRAIN else 0
            verdict = stopping.verdict(parts.cursor.epoch, parts.plan.epochs, batch)
            self.reporter.message(f"{parts.stage_name}: {verdict}")
            self.checkpointer.settle()
            stopping.restore_best(parts.model.trainable())
        parts.cursor.phase = Phase.CONSOLIDATE

    def _consolidate(self) -> None:
        parts = self.components
        parts.model.eval()  # so that nobody has to change the mode and back for each unit
        self._go_through(parts.methods.finish_task(parts.model, parts.task))
        self._go_through(self.measurement.learn_routes(parts.tasks[: parts.cursor.task + 1]))
        parts.run_log.append(
            {
                "event": "methods",
                "step": parts.cursor.step,
                "task": parts.cursor.task,
                "report": parts.methods.report(parts.model),
            }
        )
        parts.cursor.phase = Phase.EVALUATE
        self.save()

    def _evaluate(self) -> None:
        parts = self.components
        row = parts.cursor.task
        for task in parts.tasks[: row + 2]:  # one more: forward transfer to the next task
            self._go_through(self.measurement.test(row, task, step=parts.cursor.step))
        for task in parts.stage:
            task.require_unchanged()
        parts.cursor.phase = Phase.DONE
        self.save()
        accuracy, f1 = parts.matrix.row(row), parts.matrix.f1_row(row)
        self.reporter.task_finished(
            self._stage,
            {
                task.name: TaskScore(accuracy[k], f1[k], largest_share(task.test.labels))
                for k, task in enumerate(parts.tasks[: row + 1])
            },
        )

    def _make_last_save_durable(self) -> None:
        try:
            self.checkpointer.flush()
        except CheckpointError:
            self.save()
            self.checkpointer.flush()
