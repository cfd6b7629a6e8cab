"""What a run consists of, and what a snapshot of it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from plora_cl.checkpoint.format.manifest import MODEL_FILES
from plora_cl.checkpoint.snapshot.loading import Resumable
from plora_cl.compute.devices import Accelerator
from plora_cl.compute.random_state import Generators
from plora_cl.data.batches import Stream
from plora_cl.data.task import Task
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.routing.router import Router
from plora_cl.evaluation.runlog import RunLog
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.methods.base import MethodStack, below
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor, Phase, Stateful, TensorPart
from plora_cl.training.run.class_weights import balanced_weights
from plora_cl.training.run.early_stopping import EarlyStopping
from plora_cl.training.run.optimization import Optimization
from plora_cl.training.run.optimizer_state import require_usable
from plora_cl.training.run.stage import Stage

MODEL, MEMORY, ROUTER = "model/", "memory/", "router/"
"""What the names of components begin with: weights, what methods remember, what the router does."""
UNDER_WAY = "under_way"
"""The component of results of measuring or routing that is not finished; absent without any."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How each stage is trained.

    Attributes:
        epochs: Passes over the training split.
        accumulation: Batches per optimizer step.
        learning_rate: Peak rate of AdamW.
        weight_decay: Decoupled weight decay of matrices.
        warmup_ratio: Share of a stage's steps with a rising rate, in [0, 1].
        max_grad_norm: Gradient clipping threshold.
        balanced: Weigh the examples of a class by how rare it is in the training split.
    """

    epochs: int
    accumulation: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    max_grad_norm: float
    balanced: bool = False


@dataclass(slots=True)
class Components:
    """Everything that changes during a run.

    Invariant: whenever a snapshot is taken, the model has the structure of tasks
    ``0..cursor.task``, and `optimization` belongs to the tasks of `stage`. Restoring rebuilds that
    structure, then fills in the state.
    """

    model: ContinualClassifier
    stages: Sequence[Stage]
    methods: MethodStack
    accelerator: Accelerator
    plan: Plan
    early_stopping: EarlyStopping
    matrix: ScoreMatrix
    costs: Costs
    run_log: RunLog
    random: Generators
    under_way: UnderWay
    model_files: TensorPart
    router: Router | None = None
    tasks: Sequence[Task] = field(init=False)
    cursor: Cursor = field(init=False)
    optimization: Optimization | None = field(default=None, init=False)
    loss: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Begin before the first stage."""
        self.tasks = [task for stage in self.stages for task in stage.tasks]
        self.cursor = Cursor(task=self.stages[0].last)

    @property
    def stage(self) -> Stage:
        """The stage that the cursor points at."""
        return next(stage for stage in self.stages if stage.last == self.cursor.task)

    @property
    def task(self) -> Task:
        """The task that the cursor points at."""
        return self.tasks[self.cursor.task]

    @property
    def stream(self) -> Stream:
        """The training batches of the stage."""
        return self.stage.stream

    def require_position(self, cursor: Cursor) -> None:
        """Refuse a cursor that points at no batch of these stages.

        Raises:
            IncompatibleCheckpointError: It does not.
        """
        last = len(self.tasks) - 1
        if not 0 <= cursor.task <= last:
            raise IncompatibleCheckpointError(
                f"task {cursor.task} of a stream of {last + 1}; expected 0 to {last}"
            )
        batches = [len(stage.stream) for stage in self.stages if stage.last == cursor.task]
        if not batches:
            raise IncompatibleCheckpointError(
                f"a checkpoint of task {cursor.task}, and joint training learns tasks 0 to {last} "
                f"together: its checkpoints are of task {last}"
            )
        if cursor.epoch < 0 or not 0 <= cursor.batch < batches[0]:
            raise IncompatibleCheckpointError(
                f"epoch {cursor.epoch}, batch {cursor.batch} of task {cursor.task}; expected an "
                f"epoch of at least 0 and a batch of 0 to {batches[0] - 1}"
            )

    @property
    def finished(self) -> bool:
        """Whether every task is learned and measured."""
        return self.cursor.phase is Phase.DONE and self.cursor.task == len(self.tasks) - 1

    def trained_tasks(self) -> list[str]:
        """Return the names of the tasks that are finished."""
        return [task.name for task in self.tasks[: self._done]]

    @property
    def _done(self) -> int:
        """Number of tasks that are finished, and whose parts are frozen."""
        if self.cursor.phase is Phase.DONE:
            return self.cursor.task + 1
        return self.stage.first

    def last_done(self) -> tuple[int, int]:
        """Return epoch and batch, zero-based, of the last batch of the task that was done.

        Before the first one they are those of the first: its checkpoint replaces any before it.
        """
        if self.cursor.epoch == self.cursor.batch == 0:
            return 0, 0
        if self.cursor.batch:
            return self.cursor.epoch, self.cursor.batch - 1
        return self.cursor.epoch - 1, len(self.stream) - 1

    def phase_after_batch(self) -> Phase:
        """Return what comes after a batch that was trained on, with the cursor moved past it."""
        if self.cursor.batch:
            return Phase.TRAIN
        if self.early_stopping.active:
            return Phase.VALIDATE
        return Phase.CONSOLIDATE if self.cursor.epoch >= self.plan.epochs else Phase.TRAIN

    def begin_task(self) -> None:
        """Add what the stage that the cursor points at needs; its preparation comes next."""
        self._grow()
        self.early_stopping.reset()
        self.under_way.clear()  # a stop may have left final scores of fewer tasks there

    def rebuild(self, cursor: Cursor) -> None:
        """Grow the structure that a snapshot at ``cursor`` was taken of.

        Raises:
            IncompatibleCheckpointError: The cursor points at no batch of these stages, or a later
                task has begun.
        """
        self.require_position(cursor)
        if self.model.tasks > cursor.task + 1:
            raise IncompatibleCheckpointError(
                f"a checkpoint of task {cursor.task} has no place for task {self.model.tasks - 1}, "
                "which this run has begun; save one of that task, or use a new trainer"
            )
        self.cursor = cursor
        self._grow()

    def live(self) -> dict[str, Stateful]:
        """Return the components that may change at every step, by name."""
        assert self.optimization is not None
        live: dict[str, Stateful] = {
            "model/shared": self.model.part("shared"),
            "optimizer": self.optimization.optimizer,
            "scheduler": self.optimization.scheduler,
            "scaler": self.accelerator.scaler,
            "gradients": self.optimization,
            "methods": self.methods,
            "early_stopping": self.early_stopping,
            "scores": self.matrix,
            "costs": self.costs,
            "run_log": self.run_log,
            "cursor": self.cursor,
        }
        learning = range(self._done, self.cursor.task + 1)
        names = [name for task in learning for name in self.model.parts_of(task)]
        live |= {MODEL + name: self.model.part(name) for name in names}
        if self.under_way:
            live[UNDER_WAY] = self.under_way
        return {**live, "random": self.random}  # restored last: nothing may draw after it

    def constant(self) -> dict[str, TensorPart]:
        """Return the tensors that stay as they are until the phase changes, by name."""
        routes = self.router.memory() if self.router is not None else {}
        names = ["base", *(name for k in range(self._done) for name in self.model.parts_of(k))]
        return {
            MODEL_FILES: self.model_files,
            **{MODEL + name: self.model.part(name) for name in names},
            **{MEMORY + name: TensorPart(g) for name, g in self.methods.memory().items()},
            **{ROUTER + name: TensorPart(g) for name, g in routes.items()},
        }

    def restore(
        self, resumable: Resumable, in_place_of: Mapping[str, Stateful] | None = None
    ) -> None:
        """Become what ``resumable`` is a snapshot of.

        Args:
            resumable: A verified checkpoint.
            in_place_of: Components that take the state instead of these, by name.

        Raises:
            IncompatibleCheckpointError: The structure is not the same.
            CheckpointError: A component does not hold what was loaded into it.
        """
        snapshot, objects = resumable.snapshot, resumable.objects
        cursor = Cursor()
        cursor.load_state_dict(snapshot.cursor)
        self.rebuild(cursor)
        device = self.model.device
        for name, tensors in below(MODEL, objects).items():
            self.model.part(name).load_state_dict(dict(tensors))
        self.methods.load_memory(
            {
                group: {name: tensor.to(device) for name, tensor in tensors.items()}
                for group, tensors in below(MEMORY, objects).items()
            }
        )
        if self.router is not None:
            self.router.load_memory(below(ROUTER, objects))
        self.under_way.clear()
        under_way = {UNDER_WAY: self.under_way} if UNDER_WAY in snapshot.state else {}
        snapshot.restore({**under_way, **self.live(), **(in_place_of or {})})
        assert self.optimization is not None
        require_usable(self.optimization.optimizer, self.optimization.scheduler)
        self.loss = snapshot.loss

    def _grow(self) -> None:
        for task in self.tasks[self.model.tasks : self.cursor.task + 1]:
            self.model.grow(len(task.classes))
            self.methods.grow(self.model, task.index)
            self.methods.check(self.model)
        plan, stage = self.plan, self.stage
        self.optimization = Optimization(
            self.accelerator,
            self.model.trainable(),
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            warmup_ratio=plan.warmup_ratio,
            total_steps=plan.epochs * -(-len(stage.stream) // plan.accumulation),
            max_grad_norm=plan.max_grad_norm,
            class_weights={
                task.index: balanced_weights(task.train.labels, len(task.classes))
                for task in (stage.tasks if plan.balanced else ())
            },
        )
