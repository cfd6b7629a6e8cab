"""Predictions of a model on a split, and a digest of everything they depend on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plora_cl.checkpoint.digest import state_digest
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.training.devices import on_device

Predictions: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Predicted and true labels, ``[examples]`` each."""


class Scorer:
    """Predicts with the model as it stands.

    A task that the model has not grown yet is predicted with the head it would start with.

    Args:
        model: What predicts; left in evaluation mode.
        batch_size: Examples per batch.
        autocast: Opens the precision that predictions run in.
        precision: Its name.
        progress: Told ``(what, done, total)`` between batches.
    """

    def __init__(
        self,
        model: ContinualClassifier,
        *,
        batch_size: int,
        autocast: Callable[[], AbstractContextManager[object]],
        precision: str,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._model, self._batch_size = model, batch_size
        self._autocast, self._precision = autocast, precision
        self._progress = progress

    def predict(self, task: Task, split: Split, what: str) -> Predictions:
        """Return predicted and true labels, ``[examples]`` each, in the same order."""
        model = self._model
        head = self._head(task)
        predicted, true = [], []
        done = 0
        model.eval()
        with torch.no_grad():
            for cpu_batch in split.in_order(self._batch_size):
                batch = on_device(cpu_batch, model.device)
                with self._autocast():
                    represented = model.represent(batch.input_ids, batch.attention_mask, task.index)
                    logits = head(represented)
                predicted.append(logits.argmax(-1).cpu().numpy())
                true.append(cpu_batch.labels.numpy())
                done += len(cpu_batch.labels)
                self._progress(what, done, len(split))
        return np.concatenate(predicted), np.concatenate(true)

    def dependencies(self, task: Task, base: str) -> str:
        """Return a digest of all that test predictions of ``task`` depend on.

        That is every weight they run through, the texts, and how it is computed; not the machine,
        whose changes a run is told of.

        Args:
            task: What is predicted.
            base: Digest of the frozen encoder weights.
        """
        names = self._model.dependencies(task.index)
        head = {name: p.detach() for name, p in self._head(task).named_parameters()}
        return state_digest(
            {
                "base": base,
                "parts": {name: self._model.part(name).state_dict() for name in names},
                "head": head,
                "texts": task.test.digest,
                "computation": self._model.computation(),
                "precision": self._precision,
                "batch_size": self._batch_size,
            }
        )

    def _head(self, task: Task) -> nn.Module:
        if task.index < self._model.tasks:
            return self._model.heads[task.index]
        return self._model.untrained_head(task.index, len(task.classes))
