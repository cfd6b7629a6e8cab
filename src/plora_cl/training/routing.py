"""The router: tells the task of a text by features of the encoder as it was at the start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plora_cl.data.sampling import stratified_rows
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.evaluation.gaussians import TaskModel, TaskStatistics
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import SeedFor, derived_seed
from plora_cl.training.devices import on_device

_CACHE_BYTES = 1 << 30
_INITIAL = "initial"


class Router:
    """Infers the task of a text without its task id.

    Features must not drift, or statistics of earlier tasks would describe an encoder that is gone:
    they come from middle layers of the frozen encoder without adapters, with shared parameters at
    the values they had before the first task, which are kept. So the statistics of a task are a
    function of its training texts alone, whatever was learned in between.

    What it remembers stays on the CPU: one group per task, and one for the initial values.

    Args:
        model: Its shared parameters have their initial values now.
        examples: Training examples of a task to learn from, stratified.
        abstain: Share of held-out training texts that may count as doubtful, about, in [0, 1).
        batch_size: Texts per batch.
        seed: Chooses the examples, together with the task.
        progress: Told ``(what, done, total)`` between batches; may raise to stop.
    """

    def __init__(
        self,
        model: ContinualClassifier,
        *,
        examples: int,
        abstain: float,
        batch_size: int,
        seed: int,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._model, self._progress = model, progress
        self._examples, self._abstain = examples, abstain
        self._batch_size, self._seed = batch_size, seed
        self._initial = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.shared_parameters().items()
        }
        self._statistics: dict[int, TaskStatistics] = {}
        self._task_model: tuple[int, TaskModel] | None = None
        self._features: dict[str, Tensor] = {}

    def learn(self, tasks: Sequence[Task]) -> None:
        """Add those of ``tasks`` that are not known yet: the last, and what a router missed."""
        for task in tasks:
            if task.index not in self._statistics:
                self._statistics[task.index] = self._summarised(task)
        self._task_model = None

    def knows(self, tasks: int) -> bool:
        """Tell whether tasks ``0..tasks - 1`` were all learned."""
        return all(task in self._statistics for task in range(tasks))

    def route(self, task: Task, tasks: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Send the test texts of ``task`` to one of the first ``tasks`` tasks.

        Returns:
            The task chosen and whether the choice is doubtful, ``[examples]`` each, in the order
            of `Split.in_order`.
        """
        if self._task_model is None or self._task_model[0] != tasks:
            model = TaskModel([self._statistics[task] for task in range(tasks)])
            self._task_model = tasks, model
        features = self._cached(task.test, f"router: texts of {task.name}")
        chosen, doubtful = self._task_model[1].route(features, self._abstain)
        return chosen.numpy(), doubtful.numpy()

    def memory(self) -> dict[str, Mapping[str, Tensor]]:
        """Return what a checkpoint holds: statistics by task, initial values of shared parameters.

        A group never changes once it is there.
        """
        initial = {_INITIAL: self._initial} if self._initial else {}
        return {
            **initial,
            **{f"task-{task}": known.group() for task, known in self._statistics.items()},
        }

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore `memory`; without a group of initial values those of the encoder stay."""
        if _INITIAL in groups:
            self._initial = {name: tensor.cpu() for name, tensor in groups[_INITIAL].items()}
        known = {
            int(name.removeprefix("task-")): TaskStatistics.from_group(group)
            for name, group in groups.items()
            if name != _INITIAL
        }
        self._statistics = dict(sorted(known.items()))
        self._task_model, self._features = None, {}

    def _summarised(self, task: Task) -> TaskStatistics:
        seed = derived_seed(self._seed, task.index, SeedFor.ROUTER)
        texts = task.train.subset(stratified_rows(task.train.labels, self._examples, seed))
        return TaskStatistics.of(self._encoded(texts, f"router: learning {task.name}"))

    def _cached(self, split: Split, what: str) -> Tensor:
        if split.digest in self._features:
            return self._features[split.digest]
        features = self._encoded(split, what)
        held = sum(known.nbytes for known in self._features.values())
        if held + features.nbytes <= _CACHE_BYTES:
            self._features[split.digest] = features
        return features

    def _encoded(self, split: Split, what: str) -> Tensor:
        """Return ``[examples, layers, hidden]`` of a split, float32, as `in_order` has it."""
        model, found, done = self._model, [], 0
        initial = {name: value.to(model.device) for name, value in self._initial.items()}
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                for cpu_batch in split.in_order(self._batch_size):
                    batch = on_device(cpu_batch, model.device)
                    features = model.adapted.plain_layers(
                        batch.input_ids, batch.attention_mask, shared=initial
                    )
                    found.append(features.float().cpu())
                    done += len(features)
                    self._progress(what, done, len(split))
        finally:
            model.train(training)
        return torch.cat(found)
