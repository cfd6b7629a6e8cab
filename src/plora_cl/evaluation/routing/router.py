"""The router: infers the task of a text from features of the initial encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plora_cl.data.batches import Batch
from plora_cl.data.sampling import stratified_rows
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.evaluation.routing.task_lda import TaskModel, TaskStatistics
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import SeedFor, derived_seed
from plora_cl.units import Units

_CACHE_BYTES = 1 << 30
INITIAL = "initial"
"""Name of the group with the initial values of shared parameters."""
_LEARNING, _ROUTING = "router: learning", "router: routing"  # passes, see `UnderWay`

Routes = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""The task chosen for each text, and whether the choice is doubtful, ``[examples]`` each."""


class Router:
    """Infers the task of a text without its task id.

    Features must not drift, or statistics of earlier tasks would describe an encoder that no longer
    exists: they come from middle layers of the frozen encoder without adapters, with the shared
    parameters at their initial values, which the router keeps. So the statistics of a task are a
    function of its training texts alone.

    Its memory stays on the CPU: one group per task, and one for the initial values.

    Args:
        model: Its shared parameters have their initial values now.
        examples: Training examples of a task to learn from, stratified.
        abstain: Approximate share of held-out training texts that count as doubtful, in [0, 1).
        batch_size: Texts per batch.
        seed: Chooses the examples, together with the task.
        under_way: Holds the results of a pass until it is complete.
    """

    def __init__(
        self,
        model: ContinualClassifier,
        *,
        examples: int,
        abstain: float,
        batch_size: int,
        seed: int,
        under_way: UnderWay,
    ) -> None:
        self._model, self._under_way = model, under_way
        self._examples, self._abstain = examples, abstain
        self._batch_size, self._seed = batch_size, seed
        self._initial = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.shared_parameters().items()
        }
        self._statistics: dict[int, TaskStatistics] = {}
        self._task_model: tuple[int, TaskModel] | None = None
        self._features: dict[tuple[str, int], Tensor] = {}  # by split and place in it
        self._held_bytes = 0

    def learn(self, tasks: Sequence[Task]) -> Units[None]:
        """Learn those of ``tasks`` that are not known yet.

        A unit is a batch.
        """
        for task in tasks:
            if task.index not in self._statistics:
                self._statistics[task.index] = yield from self._summarised(task)
                self._under_way.forget(_LEARNING)
                self._task_model = None

    def knows(self, tasks: int) -> bool:
        """Tell whether tasks ``0..tasks - 1`` were all learned."""
        return all(task in self._statistics for task in range(tasks))

    def route(self, task: Task, tasks: int) -> Units[Routes]:
        """Send the test texts of ``task`` to one of the first ``tasks`` tasks.

        A unit is a batch. `forget` the routes when they are recorded.

        Returns:
            Routes in the order of `Split.in_order`.
        """
        if self._task_model is None or self._task_model[0] != tasks:
            self._task_model = tasks, TaskModel([self._statistics[k] for k in range(tasks)])
        task_model, encoded = self._task_model[1], self._encoder()

        def routed(batch: Batch, first: int) -> dict[str, Tensor]:
            features = self._features.get((task.test.digest, first))
            if features is None:
                features = self._kept(encoded(batch), task.test, first)
            chosen, doubtful = task_model.route(features, self._abstain)
            return {"chosen": chosen, "doubtful": doubtful}

        found = yield from self._under_way.pass_over(
            task.test,
            self._batch_size,
            routed,
            name=_ROUTING,
            key=f"{tasks} tasks, {task.test.digest}, {self._batch_size}, {self._abstain}",
            what=f"router: texts of {task.name}",
        )
        return found["chosen"].numpy().copy(), found["doubtful"].numpy().copy()

    def forget(self) -> None:
        """Remove the last routes from the checkpoints: they are recorded elsewhere."""
        self._under_way.forget(_ROUTING)

    def memory(self) -> dict[str, Mapping[str, Tensor]]:
        """Return statistics by task and the initial values of shared parameters.

        A group never changes.
        """
        initial = {INITIAL: self._initial} if self._initial else {}
        return {
            **initial,
            **{f"task-{task}": known.group() for task, known in self._statistics.items()},
        }

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore `memory`; without a group of initial values those of the encoder stay."""
        if INITIAL in groups:
            self._initial = {name: tensor.cpu() for name, tensor in groups[INITIAL].items()}
        self._statistics = statistics_of(groups)
        self._task_model, self._features, self._held_bytes = None, {}, 0

    def _summarised(self, task: Task) -> Units[TaskStatistics]:
        seed = derived_seed(self._seed, task.index, SeedFor.ROUTER)
        texts = task.train.subset(stratified_rows(task.train.labels, self._examples, seed))
        encoded = self._encoder()
        found = yield from self._under_way.pass_over(
            texts,
            self._batch_size,
            lambda batch, _: {"features": encoded(batch)},
            name=_LEARNING,
            key=f"{texts.digest}, {self._batch_size}",
            what=f"router: learning {task.name}",
        )
        return TaskStatistics.of(found["features"])

    def _kept(self, features: Tensor, split: Split, first: int) -> Tensor:
        """Return ``features``; keep them for later rows within a limit of memory."""
        if self._held_bytes + features.nbytes <= _CACHE_BYTES:
            self._held_bytes += features.nbytes
            self._features[split.digest, first] = features
        return features

    def _encoder(self) -> Callable[[Batch], Tensor]:
        return plain_encoder(self._model, self._initial)


def plain_encoder(
    model: ContinualClassifier, initial: Mapping[str, Tensor]
) -> Callable[[Batch], Tensor]:
    """Return what encodes a batch for the router, ``[examples, layers, hidden]``, float32, CPU.

    Args:
        model: Encodes without adapters.
        initial: Initial values of its shared parameters, by name.
    """
    on_device = {name: value.to(model.device) for name, value in initial.items()}

    def encoded(cpu_batch: Batch) -> Tensor:
        training = model.training
        if training:
            model.eval()
        try:
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                batch = cpu_batch.to(model.device)
                features = model.adapted.plain_layers(
                    batch.input_ids, batch.attention_mask, shared=on_device
                )
                return features.float().cpu()
        finally:
            if training:
                model.train()

    return encoded


def statistics_of(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[int, TaskStatistics]:
    """Return what `Router.memory` holds of each task, by task.

    Raises:
        IncompatibleCheckpointError: A group holds other statistics than those of this version.
    """
    known = {
        int(name.removeprefix("task-")): TaskStatistics.from_group(group)
        for name, group in groups.items()
        if name != INITIAL
    }
    return dict(sorted(known.items()))
