"""Predictions of a model on a split, and a digest of everything they depend on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plora_cl.compute.finite import WAY_OUT
from plora_cl.data.batches import Batch
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.errors import TrainingError
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state_digest import state_digest
from plora_cl.units import Units

Predictions: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Predicted and true labels, ``[examples]`` each."""


_PASS = "predictions"


@dataclass(frozen=True, slots=True)
class Scorer:
    """Predicts with the present model.

    A task that has not begun is predicted with the head that it would start with.

    Attributes:
        model: What predicts; left in evaluation mode.
        batch_size: Examples per batch.
        autocast: Opens the precision that predictions run in.
        precision: Its name.
        under_way: Holds the predictions of a split until `forget`.
    """

    model: ContinualClassifier
    batch_size: int
    autocast: Callable[[], AbstractContextManager[object]]
    precision: str
    under_way: UnderWay

    def predict(self, task: Task, split: Split, what: str, *, key: str) -> Units[Predictions]:
        """Return predicted and true labels, ``[examples]`` each, in the same order.

        A unit is a batch.

        Args:
            task: Its adapters and head predict.
            split: What to predict.
            what: The name of this work.
            key: Tells these weights from others that one checkpoint can go with.

        Raises:
            TrainingError: A logit is not finite.
        """
        model, head = self.model, self._head(task)

        def predicted(cpu_batch: Batch, _: int) -> dict[str, torch.Tensor]:
            model.eval()
            batch = cpu_batch.to(model.device)
            with torch.no_grad(), self.autocast():
                represented = model.represent(batch.input_ids, batch.attention_mask, task.index)
                logits = head(represented)
                _require_finite(logits, what)
                return {"labels": logits.argmax(-1).cpu()}

        found = yield from self.under_way.pass_over(
            split,
            self.batch_size,
            predicted,
            name=_PASS,
            key=f"{what}, {key}, {split.digest}, {self.batch_size}",
            what=what,
        )
        return found["labels"].numpy().copy(), split.labels[split.order]

    def forget(self) -> None:
        """Remove the last predictions from the checkpoints: they are recorded elsewhere."""
        self.under_way.forget(_PASS)

    def dependencies(self, task: Task, base: str) -> str:
        """Return a digest of all that test predictions of ``task`` depend on.

        These are every weight they pass through, the texts, and how they are computed; not the
        machine, whose changes are reported when a run is resumed.

        Args:
            task: What is predicted.
            base: Digest of the frozen encoder weights.
        """
        names = self.model.dependencies(task.index)
        head = {name: p.detach() for name, p in self._head(task).named_parameters()}
        return state_digest(
            {
                "base": base,
                "parts": {name: self.model.part(name).state_dict() for name in names},
                "head": head,
                "texts": task.test.digest,
                "computation": self.model.computation(),
                "precision": self.precision,
                "batch_size": self.batch_size,
            }
        )

    def _head(self, task: Task) -> nn.Module:
        if task.index < self.model.tasks:
            return self.model.heads[task.index]
        return self.model.untrained_head(task.index, len(task.classes))


def _require_finite(logits: torch.Tensor, what: str) -> None:
    finite = logits.isfinite().all(-1)
    if not finite.all():
        raise TrainingError(
            f"{what}: the logits of {int((~finite).sum())} of {len(finite)} texts are not finite, "
            f"so that they have no predictions; {WAY_OUT}"
        )
