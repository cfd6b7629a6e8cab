"""Infers the task of a text, with what the router of a run learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from plora_cl.data.batches import Batch
from plora_cl.evaluation.routing.router import INITIAL, plain_encoder, statistics_of
from plora_cl.evaluation.routing.task_lda import TaskModel
from plora_cl.model.classifier import ContinualClassifier


class TaskChoice:
    """Chooses among the tasks that the router had learned when the checkpoint was saved.

    Args:
        encoded: Returns router features of a batch.
        model: Scores them.
        tasks: Number of tasks to choose from.
        abstain: Share of held-out training texts that count as doubtful, in [0, 1).
    """

    def __init__(
        self, encoded: Callable[[Batch], Tensor], model: TaskModel, *, tasks: int, abstain: float
    ) -> None:
        self._encoded, self._model, self._abstain = encoded, model, abstain
        self.tasks = tasks

    @classmethod
    def of(
        cls,
        classifier: ContinualClassifier,
        groups: Mapping[str, Mapping[str, Tensor]],
        *,
        abstain: float,
    ) -> Self | None:
        """Return what the router's groups of a checkpoint make of it; None if it has none.

        Raises:
            IncompatibleCheckpointError: They are of another version of the router.
        """
        statistics = statistics_of(groups)
        if not statistics:
            return None
        encoded = plain_encoder(classifier, groups.get(INITIAL, {}))
        model = TaskModel([statistics[task] for task in range(len(statistics))])
        return cls(encoded, model, tasks=len(statistics), abstain=abstain)

    def choose(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the task of each text, its probability, and whether the choice is doubtful.

        The probability is the softmax over the tasks' log densities under a uniform prior. It says
        which task is likelier, not whether the text is like any of them; doubt says both.

        Returns:
            ``[batch]`` each: int64, float64 in [0, 1], bool.
        """
        features = self._encoded(batch)
        chosen, doubtful = self._model.route(features, self._abstain)
        probability = torch.softmax(self._model.scores(features), 1).max(1).values
        return chosen, probability, doubtful
