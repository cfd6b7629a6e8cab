"""A run: walks tasks and phases, and knows at which instants everything agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accelerate import Accelerator

from plora_cl.checkpoint.resume import Resumable
from plora_cl.data.batches import BatchStream
from plora_cl.data.task import Task
from plora_cl.errors import CheckpointError
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.metrics import scores
from plora_cl.evaluation.runlog import RunLog
from plora_cl.methods.base import MethodStack
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor, Phase, RandomState, Stateful, TensorPart
from plora_cl.training.checkpointer import Checkpointer
from plora_cl.training.early_stopping import EarlyStopping
from plora_cl.training.loop import train_epoch
from plora_cl.training.optimization import Optimization, ScalerState, StepResult
from plora_cl.training.reporting import Reporter
from plora_cl.training.scoring import Scorer
from plora_cl.training.stopping import StopRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """How each task is trained.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Examples per micro-batch.
        accumulation: Micro-batches per optimizer step.
        learning_rate: Peak rate of AdamW.
        weight_decay: Decoupled weight decay of matrices.
        warmup_ratio: Share of a task's steps with a rising rate, in [0, 1].
        max_grad_norm: Gradient clipping threshold.
        seed: Fixes data order, initialisation and dropout.
    """

    epochs: int
    batch_size: int
    accumulation: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    max_grad_norm: float
    seed: int


@dataclass(slots=True)
class Run:
    """Learns a stream of tasks, one after the other.

    Invariant: whenever a snapshot is taken, the model has the structure of tasks
    ``0..cursor.task`` and `optimization` belongs to the last of them. Restoring rebuilds that
    structure, then fills in the state.
    """

    model: ContinualClassifier
    tasks: Sequence[Task]
    methods: MethodStack
    accelerator: Accelerator
    plan: Plan
    scorer: Scorer
    early_stopping: EarlyStopping
    matrix: ScoreMatrix
    costs: Costs
    run_log: RunLog
    checkpointer: Checkpointer
    reporter: Reporter
    random: RandomState
    stop: StopRequest
    cursor: Cursor = field(default_factory=Cursor)
    optimization: Optimization | None = None
    loss: float | None = None

    @property
    def finished(self) -> bool:
        """Whether every task is learned and measured."""
        return self.cursor.phase is Phase.DONE and self.cursor.task == len(self.tasks) - 1

    def learn(self) -> None:
        """Learn every task from where the cursor stands.

        Raises:
            RunStoppedError: That was asked for; everything done so far is saved or can be redone.
            TrainingError: The loss is not finite.
            MethodError: A method cannot have an effect.
            CheckpointError: The last checkpoint could not be written.
        """
        if self.optimization is None:
            self._measure_untrained()
            self._begin_task()
        while True:
            self._finish_current_task()
            if self.finished:
                self._make_last_save_durable()
                return
            self.cursor.next_task()
            self._begin_task()

    def rebuild(self, cursor: Cursor) -> None:
        """Grow the structure that a snapshot at ``cursor`` was taken of."""
        self.cursor = cursor
        while self.model.tasks <= cursor.task:
            self._grow(self.tasks[self.model.tasks])
        self.optimization = self._new_optimization(self._task)

    def live(self) -> dict[str, Stateful]:
        """Return the components that may change at every step, by name."""
        assert self.optimization is not None
        parts = self.model.parts()
        live: dict[str, Stateful] = {
            "model/shared": parts["shared"],
            "optimizer": self.optimization.optimizer,
            "scheduler": self.optimization.scheduler,
            "scaler": ScalerState(self.optimization),
            "methods": self.methods,
            "early_stopping": self.early_stopping,
            "scores": self.matrix,
            "costs": self.costs,
            "run_log": self.run_log,
            "cursor": self.cursor,
        }
        if self.cursor.phase is not Phase.DONE:
            k = self.cursor.task
            live |= {f"model/{kind}-{k}": parts[f"{kind}-{k}"] for kind in ("adapter", "head")}
        return {**live, "random": self.random}  # restored last: nothing may draw after it

    def count_batch_done(self) -> None:
        """Move the cursor past the batch it points at, into the next epoch after the last one."""
        step = self.cursor.step
        self.cursor.advance(1, batches_per_epoch=len(self._stream))
        self.cursor.step = step

    def constant(self) -> dict[str, TensorPart]:
        """Return the tensors that stay as they are until the phase changes, by name."""
        done = self.cursor.task + (self.cursor.phase is Phase.DONE)
        parts = self.model.parts()
        names = ["base", *(f"{kind}-{k}" for k in range(done) for kind in ("adapter", "head"))]
        return {
            **{f"model/{name}": parts[name] for name in names},
            **{f"memory/{name}": TensorPart(g) for name, g in self.methods.memory().items()},
        }

    def restore(
        self, resumable: Resumable, in_place_of: Mapping[str, Stateful] | None = None
    ) -> list[str]:
        """Become the run that ``resumable`` is a snapshot of.

        Args:
            resumable: A verified checkpoint.
            in_place_of: Components that take the state instead of the run's own, by name.

        Returns:
            How the environment differs from the one of the snapshot, a line each.

        Raises:
            IncompatibleCheckpointError: The structure is not the same.
            CheckpointError: A component does not hold what was loaded into it.
        """
        snapshot, objects = resumable.snapshot, resumable.objects
        cursor = Cursor()
        cursor.load_state_dict(snapshot.cursor)
        self.rebuild(cursor)
        parts = self.model.parts()
        for name, tensors in objects.items():
            if name.startswith("model/"):
                parts[name.removeprefix("model/")].load_state_dict(dict(tensors))
        prefix = "memory/"
        device = self.model.device
        self.methods.load_memory(
            {
                group.removeprefix(prefix): {name: t.to(device) for name, t in tensors.items()}
                for group, tensors in objects.items()
                if group.startswith(prefix)
            }
        )
        snapshot.restore({**self.live(), **(in_place_of or {})})
        self.loss = snapshot.loss
        return self.checkpointer.adopt(resumable)

    @property
    def _task(self) -> Task:
        return self.tasks[self.cursor.task]

    @property
    def _stream(self) -> BatchStream:
        return BatchStream(
            self._task.train,
            task=self.cursor.task,
            batch_size=self.plan.batch_size,
            seed=self.plan.seed,
        )

    def _grow(self, task: Task) -> None:
        self.model.grow(len(task.classes))
        self.methods.grow(self.model, task.index)
        self.methods.check(self.model)

    def _begin_task(self) -> None:
        self._grow(self._task)
        self.optimization = self._new_optimization(self._task)
        self.early_stopping.reset()
        self.methods.start_task(self.model, self._task)

    def _new_optimization(self, task: Task) -> Optimization:
        batches = -(-len(task.train) // self.plan.batch_size)
        steps_per_epoch = -(-batches // self.plan.accumulation)
        return Optimization(
            self.accelerator,
            self.model.trainable(),
            learning_rate=self.plan.learning_rate,
            weight_decay=self.plan.weight_decay,
            warmup_ratio=self.plan.warmup_ratio,
            total_steps=self.plan.epochs * steps_per_epoch,
            max_grad_norm=self.plan.max_grad_norm,
        )

    def _finish_current_task(self) -> None:
        actions = {
            Phase.TRAIN: self._train,
            Phase.VALIDATE: self._validate,
            Phase.CONSOLIDATE: self._consolidate,
            Phase.EVALUATE: self._evaluate,
        }
        self.reporter.task_started(
            self.cursor.task, len(self.tasks), self._task.name, self._steps_left()
        )
        while self.cursor.phase is not Phase.DONE:
            with self.costs.measure(self._task.name, self.cursor.phase.value):
                actions[self.cursor.phase]()

    def _steps_left(self) -> int:
        batches = len(self._stream)
        per_epoch = -(-batches // self.plan.accumulation)
        done = self.cursor.epoch * per_epoch + -(-self.cursor.batch // self.plan.accumulation)
        return max(self.plan.epochs * per_epoch - done, 0)

    def _train(self) -> None:
        assert self.optimization is not None
        if self.cursor.epoch >= self.plan.epochs:
            self.cursor.phase = Phase.CONSOLIDATE
            return
        train_epoch(
            self.model,
            self.optimization,
            self.methods,
            self._stream,
            self.cursor,
            accumulation=self.plan.accumulation,
            after_step=self._after_step,
        )

    def _after_step(self, result: StepResult) -> None:
        cursor = self.cursor
        epoch, batch = self._last_done()
        self.loss = result.loss
        self.costs.count(self._task.name, steps=1, examples=result.examples)
        self.run_log.append(
            {
                "event": "step",
                "step": cursor.step,
                "task": cursor.task,
                "epoch": epoch,
                "batch": batch,
                "loss": result.loss,
                "penalties": dict(result.penalties),
                "gradient_norm": result.gradient_norm,
                "learning_rate": result.learning_rate,
            }
        )
        self.reporter.step(
            cursor.task,
            epoch,
            self.plan.epochs,
            batch,
            len(self._stream),
            result.loss,
            result.examples,
        )
        epoch_ended = cursor.batch == 0
        if epoch_ended:
            cursor.phase = self._phase_after_epoch()
        stopping = self.stop.requested
        if epoch_ended or stopping or self.checkpointer.due(cursor.step):
            self.save()
        if stopping:
            self.stop.check()

    def _phase_after_epoch(self) -> Phase:
        if self.early_stopping.active:
            return Phase.VALIDATE
        return Phase.CONSOLIDATE if self.cursor.epoch == self.plan.epochs else Phase.TRAIN

    def _last_done(self) -> tuple[int, int]:
        if self.cursor.batch:
            return self.cursor.epoch, self.cursor.batch - 1
        return self.cursor.epoch - 1, len(self._stream) - 1

    def _validate(self) -> None:
        task = self._task
        what = f"validation on {task.name}"
        accuracy, f1 = scores(
            *self.scorer.predict(task, task.validation, what), classes=len(task.classes)
        )
        self.run_log.append(
            {
                "event": "validation",
                "step": self.cursor.step,
                "task": task.index,
                "epoch": self.cursor.epoch - 1,
                "accuracy": accuracy,
                "f1": f1,
            }
        )
        stop = self.early_stopping.update(accuracy, self.model.trainable())
        if stop or self.cursor.epoch == self.plan.epochs:
            self.early_stopping.restore_best(self.model.trainable())
            self.cursor.phase = Phase.CONSOLIDATE
        else:
            self.cursor.phase = Phase.TRAIN

    def _consolidate(self) -> None:
        progress = self.stop.polled_by(self.reporter.activity)
        self.methods.finish_task(self.model, self._task, progress)
        self.cursor.phase = Phase.EVALUATE
        self.save()

    def _evaluate(self) -> None:
        row = self.cursor.task
        for task in self.tasks[: row + 2]:  # one more: forward transfer to the next task
            self._measure(row, task)
        self.cursor.phase = Phase.DONE
        self.save()
        accuracies = self.matrix.row(row)
        self.reporter.task_finished(
            row, {t.name: accuracies[t.index] for t in self.tasks[: row + 1]}
        )

    def _measure(self, row: int, task: Task) -> None:
        digest = self.scorer.dependencies(task, self.checkpointer.base_digest)
        known = self.matrix.reusable(task.index, digest)
        if known is None:
            what = f"evaluation on {task.name}"
            known = scores(*self.scorer.predict(task, task.test, what), classes=len(task.classes))
        self.matrix.record(row, task.index, *known, digest)
        self.run_log.append(
            {
                "event": "evaluation",
                "step": self.cursor.step,
                "task": row,
                "on": task.index,
                "accuracy": known[0],
                "f1": known[1],
            }
        )

    def _measure_untrained(self) -> None:
        for task in self.tasks:
            what = f"untrained on {task.name}"
            with self.costs.measure(task.name, "untrained"):
                accuracy, f1 = scores(
                    *self.scorer.predict(task, task.test, what), classes=len(task.classes)
                )
            digest = self.scorer.dependencies(task, self.checkpointer.base_digest)
            self.matrix.record_untrained(task.index, accuracy, f1, digest)

    def save(self) -> None:
        """Save a checkpoint of this instant, if checkpoints are on."""
        if not self.checkpointer.enabled:
            return
        with self.costs.measure(self._task.name, "checkpoint"):
            self.checkpointer.save(
                self.cursor,
                self._last_done(),
                self.live(),
                self.constant,
                loss=self.loss,
                trained_tasks=self.trained_tasks(),
            )

    def _make_last_save_durable(self) -> None:
        try:
            self.checkpointer.flush()
        except CheckpointError:
            self.save()
            self.checkpointer.flush()

    def trained_tasks(self) -> list[str]:
        """Return the names of the tasks that are finished."""
        done = self.cursor.task + (self.cursor.phase is Phase.DONE)
        return [task.name for task in self.tasks[:done]]
