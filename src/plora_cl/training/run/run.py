"""A run: its components, and how it is saved and stopped at the instants at which they agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.store.store import CheckpointEntry
from plora_cl.compute.finite import require_finite_weights
from plora_cl.errors import CheckpointError, TrainingError
from plora_cl.evaluation.measurement import FinalScores, Measurement
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor, Phase, Stateful
from plora_cl.training.reporting import Reporter
from plora_cl.training.run.checkpointer import Checkpointer
from plora_cl.training.run.components import Components
from plora_cl.training.stopping import StopRequest
from plora_cl.units import Units

_SECONDS_BETWEEN_SAVES = 30.0
_PHASES_THAT_CHANGE_MEMORY = (Phase.PREPARE, Phase.CONSOLIDATE)

_T = TypeVar("_T")


@dataclass(slots=True)
class Run:
    """One computation over a stream of tasks, which `learn` carries out.

    Attributes:
        components: Everything that changes.
        measurement: Measures validation and test splits.
        checkpointer: Writes the checkpoints.
        reporter: Receives the progress.
        stop: Polled at every instant at which the run can stop.
        disk: What it writes with; see `Filesystem`.
        clock: Seconds from any fixed origin; decides how often long work between training steps is
            saved, nothing else.
    """

    components: Components
    measurement: Measurement
    checkpointer: Checkpointer
    reporter: Reporter
    stop: StopRequest
    disk: Filesystem = field(default_factory=Filesystem)
    clock: Callable[[], float] = time.monotonic
    _last_save: float = field(default=float("-inf"), init=False)
    _has_saved_scores: bool = field(default=False, init=False)

    @property
    def model(self) -> ContinualClassifier:
        """The model."""
        return self.components.model

    @contextmanager
    def in_effect(self) -> Iterator[None]:
        """Have the process draw and compute as this run does, within the ``with`` block."""
        self._last_save = self.clock()
        with self.components.random.in_effect(), self.components.accelerator.in_effect():
            yield

    def save(self, last_done: tuple[int, int] | None = None) -> None:
        """Save a checkpoint of this instant, if checkpoints are on.

        Settle the checkpointer before a tensor of a component changes.

        Args:
            last_done: Epoch and batch in the name of the checkpoint; by default the last ones done.

        Raises:
            ExperimentMovedError: The folder no longer belongs to the run.
        """
        self.disk.require()  # here: an error of the writer surfaces only with the next save
        parts, self._last_save = self.components, self.clock()
        self._has_saved_scores = bool(parts.under_way)
        if self.checkpointer.store is None:
            return
        with parts.costs.measure(parts.stage.name, "checkpoint"):
            self._write(parts.cursor, last_done or parts.last_done(), parts.live(), loss=parts.loss)

    def save_at(
        self,
        cursor: Cursor,
        given: Mapping[str, Stateful],
        *,
        loss: float | None,
        is_learning: bool,
    ) -> Path:
        """Save for a training loop that is not the run's; return the path once it is durable.

        The random generators are those of the process.

        Args:
            cursor: The batch that was done last; advanced.
            given: Components that are saved instead of the run's own, by name.
            loss: Of that batch.
            is_learning: `learn` is at work, whose cursor stays as it is. Without it the cursor of
                the run moves to the saved one, whose step counts the batches that were done.

        Raises:
            IncompatibleCheckpointError: There is no such batch.
            CheckpointError: Checkpoints are disabled, or the disk refused.
        """
        parts, last_done = self.components, (cursor.epoch, cursor.batch)
        parts.require_position(cursor)
        parts.random.take_over()
        own = parts.cursor
        is_under_way = parts.optimization is not None and own.task == cursor.task
        if is_under_way:
            parts.cursor = cursor
        else:
            parts.rebuild(cursor)
        if not is_learning:
            batches = len(parts.stream)
            before = own.epoch * batches + own.batch if own.task == cursor.task else 0
            cursor.step += max(0, cursor.epoch * batches + cursor.batch + 1 - before)
        is_saved = False
        try:
            cursor.advance(batches_per_epoch=len(parts.stream))
            cursor.phase = parts.phase_after_batch()
            path = self._write(cursor, last_done, {**parts.live(), **given}, loss=loss)
            self.checkpointer.flush()
            is_saved = True
        finally:
            if is_under_way and (is_learning or not is_saved):
                parts.cursor = own
        return path

    def _write(
        self,
        cursor: Cursor,
        last_done: tuple[int, int],
        live: Mapping[str, Stateful],
        *,
        loss: float | None,
    ) -> Path:
        parts = self.components
        trained = parts.trained_tasks()
        try:
            return self.checkpointer.save(
                cursor, last_done, live, parts.constant, loss=loss, trained_tasks=trained
            )
        except TypeError:
            parts.methods.require_plain_states()
            raise

    def save_in_training(self) -> None:
        """Save, unless the last step has broken the weights; no loss has seen them yet.

        Raises:
            TrainingError: A weight is not finite.
        """
        try:
            require_finite_weights(self.model.trainable())
        except TrainingError as error:
            raise self._located(error) from error
        self.save()

    def go_through(self, units: Units[_T]) -> _T:
        """Do long work unit by unit; save now and then, and stop where that is requested.

        At least one unit is done before a stop: work that is stopped again and again still ends.
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
                self.reporter.activity(unit)
                if self.stop.requested or self.clock() - self._last_save >= _SECONDS_BETWEEN_SAVES:
                    if self.components.cursor.phase in _PHASES_THAT_CHANGE_MEMORY:
                        self.checkpointer.constant_changed()
                    self.save()
                    self.stop.check()
                    self.checkpointer.settle()

    def _located(self, error: TrainingError) -> TrainingError:
        """Return ``error`` with the last step that was done."""
        cursor, (epoch, batch) = self.components.cursor, self.components.last_done()
        return TrainingError(
            f"step {cursor.step} (task {cursor.task}, epoch {epoch}, batch {batch}): {error}"
        )

    def begin_branch(self, source: CheckpointEntry) -> CheckpointEntry:
        """Save this instant as the first checkpoint of a branch; return its entry once durable.

        Args:
            source: The checkpoint that was resumed, which gives the name.

        Raises:
            CheckpointError: It could not be written: nothing was changed.
        """
        position = source.position
        self.save((position.epoch, position.batch))
        self.checkpointer.flush()
        assert self.checkpointer.store is not None
        return CheckpointEntry.at(self.checkpointer.store.directory / source.name)

    def final_scores(self, *, validation: bool) -> FinalScores:
        """Return the scores that are published along with the matrix; `forget_scores` afterwards.

        Args:
            validation: Measure on the validation splits, too.

        Raises:
            RunStoppedError: That was requested; what was measured is saved.
            TrainingError: A logit is not finite.
            DataError: The tokens of a split that was measured on changed.
        """
        parts = self.components
        self._has_saved_scores = bool(parts.under_way)
        row = len(parts.tasks) - 1
        with self.in_effect():
            found = self.go_through(
                self.measurement.at_the_end(row, parts.tasks, validation=validation)
            )
        for task in parts.tasks:  # measured on since it was learned
            task.require_unchanged()
        return found

    def forget_scores(self) -> None:
        """Remove the `final_scores` that a stop has left in the last checkpoint, if any."""
        self.components.under_way.clear()
        if self._has_saved_scores:
            self.save()
            with suppress(CheckpointError):  # it was reported, and nothing depends on it
                self.checkpointer.flush()

    def sync_log(self) -> None:
        """Make every record of the run log durable.

        Raises:
            ExperimentMovedError: The folder no longer belongs to the run.
            OSError: The disk refused.
        """
        self.disk.require()
        self.components.run_log.sync()
