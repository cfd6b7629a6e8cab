"""From texts to logits: sorted by length, several tasks in a batch, ordered back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plora_cl.data.batches import Batch
from plora_cl.data.sources.base import Row
from plora_cl.data.tokens.tokenisation import ids_of_rows
from plora_cl.errors import DataError, ModelError
from plora_cl.inference.loaded import LoadedModel
from plora_cl.inference.predictions import Prediction
from plora_cl.model.mixed import can_mix, mixed_logits

_TEXTS_AT_ONCE = 4096


class _Choice(NamedTuple):
    """The task of a text."""

    task: int
    probability: float = 1.0
    is_doubtful: bool = False


class TextPredictor:
    """Predicts texts with a loaded model; not for several threads at once.

    Args:
        loaded: The model.
        batch_size: Texts in a forward pass.
    """

    def __init__(self, loaded: LoadedModel, *, batch_size: int) -> None:
        self._loaded, self._batch_size = loaded, batch_size

    def logits(self, texts: Sequence[str], tasks: Sequence[int]) -> Iterator[Tensor]:
        """Yield the logits of each text under its task, float32 ``[classes]`` on the CPU.

        Args:
            texts: What to predict.
            tasks: The index of the task of each text.

        Raises:
            DataError: A text has no tokens.
            ModelError: A logit is not finite.
        """
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            ids = self._ids(texts[first : first + _TEXTS_AT_ONCE], first)
            yield from self._logits(ids, tasks[first : first + _TEXTS_AT_ONCE], first)

    def predictions(
        self, texts: Sequence[str], tasks: Sequence[int | None]
    ) -> Iterator[Prediction]:
        """Yield the prediction of each text.

        Args:
            texts: What to predict.
            tasks: The index of the task of each text; None to infer it.

        Raises:
            ModelError: There is nothing to infer tasks with, or a logit is not finite.
            DataError: A text has no tokens.
        """
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            last = min(first + _TEXTS_AT_ONCE, len(texts))
            ids = self._ids(texts[first:last], first)
            chosen = self._chosen(ids, tasks[first:last])
            found = self._logits(ids, [choice.task for choice in chosen], first)
            for logits, choice in zip(found, chosen, strict=True):
                yield self._prediction(logits, choice)

    def _prediction(self, logits: Tensor, choice: _Choice) -> Prediction:
        learned = self._loaded.tasks[choice.task]
        probabilities = torch.softmax(logits.double(), 0).tolist()
        best = int(logits.argmax())
        return Prediction(
            label=learned.classes[best],
            probability=probabilities[best],
            probabilities=dict(zip(learned.classes, probabilities, strict=True)),
            task=learned.name,
            task_probability=choice.probability,
            abstained=choice.is_doubtful,
        )

    def _ids(self, texts: Sequence[str], first: int) -> list[list[int]]:
        rows = []
        for number, text in enumerate(texts, first + 1):
            if not isinstance(text, str):
                raise DataError(f"text {number} is a {type(text).__name__}; expected a str")
            rows.append(Row(number, text, ""))
        loaded = self._loaded
        return ids_of_rows(loaded.tokenizer, rows, loaded.settings.max_length, "texts")

    def _chosen(self, ids: Sequence[Sequence[int]], tasks: Sequence[int | None]) -> list[_Choice]:
        result = [_Choice(-1 if task is None else task) for task in tasks]
        unknown = [row for row, task in enumerate(tasks) if task is None]
        if not unknown:
            return result
        choice = self._loaded.choice
        if choice is None:
            raise ModelError(
                "the task of a text cannot be inferred: the run has no router (use_router: false, "
                "or no task was finished); name the task"
            )
        of_unknown = [ids[row] for row in unknown]
        for rows in _batches(of_unknown, [0] * len(unknown), self._batch_size, apart=False):
            columns = choice.choose(self._padded(of_unknown, rows))
            for row, *found in zip(rows, *(c.tolist() for c in columns), strict=True):
                result[unknown[row]] = _Choice(*found)
        return result

    def _logits(
        self, ids: Sequence[Sequence[int]], tasks: Sequence[int], first: int
    ) -> list[Tensor]:
        model = self._loaded.classifier
        result: list[Tensor] = [torch.empty(0)] * len(ids)
        mixes = can_mix(model)
        for rows in _batches(ids, tasks, self._batch_size, apart=not mixes):
            batch = self._padded(ids, rows).to(model.device)
            of_rows = [tasks[row] for row in rows]
            with torch.no_grad(), self._loaded.accelerator.autocast():
                if mixes:
                    logits = mixed_logits(model, batch.input_ids, batch.attention_mask, of_rows)
                else:
                    logits = list(model(batch.input_ids, batch.attention_mask, of_rows[0]))
            for row, of_row in zip(rows, logits, strict=True):
                result[row] = of_row.float().cpu()
        for row, of_row in enumerate(result):
            if not of_row.isfinite().all():
                raise ModelError(
                    f"text {first + row + 1}: its logits are not finite, so that it has no "
                    "prediction; the weights of this checkpoint may have diverged"
                )
        return result

    def _padded(self, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Batch:
        longest = max(len(ids[row]) for row in rows)
        pad = self._loaded.tokenizer.pad_token_id
        input_ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        for place, row in enumerate(rows):
            input_ids[place, : len(ids[row])] = torch.tensor(ids[row])
            mask[place, : len(ids[row])] = 1
        return Batch(input_ids, mask, labels=torch.zeros(len(rows), dtype=torch.int64), task=0)


def _batches(
    ids: Sequence[Sequence[int]], tasks: Sequence[int], batch_size: int, *, apart: bool
) -> Iterator[list[int]]:
    """Yield rows by length, shortest first; ``apart`` keeps tasks in batches of their own."""
    lengths = np.array([len(tokens) for tokens in ids])
    groups = [np.flatnonzero(np.array(tasks) == k) for k in sorted(set(tasks))] if apart else None
    for group in groups or [np.arange(len(ids))]:
        rows = group[np.argsort(lengths[group], kind="stable")]
        for first in range(0, len(rows), batch_size):
            yield rows[first : first + batch_size].tolist()
