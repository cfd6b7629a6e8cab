"""Batches of tokenised text, addressable at random."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plora_cl.state import derived_seed


class Batch(NamedTuple):
    """Examples of one task, padded to the longest of them.

    Attributes:
        input_ids: ``[batch, tokens]``, int64.
        attention_mask: ``[batch, tokens]``, int64, 1 for text and 0 for padding.
        labels: ``[batch]``, int64, index into the task's classes.
        task: Zero-based index of the task.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    task: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on ``device``."""
        return self._replace(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


class Examples(Protocol):
    """A split of a task: rows that become batches."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Return the given rows, in that order, as one batch on the CPU."""
        ...


class Stream(Protocol):
    """Batches to train on, addressable by ``(epoch, batch)``."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def at(self, epoch: int, batch: int) -> Batch:
        """Return batch ``batch`` of epoch ``epoch``, both zero-based."""
        ...


class BatchStream:
    """Shuffled batches of a split, addressable by ``(epoch, batch)``.

    The order is a pure function of ``(seed, task, epoch)``: resuming needs no state, and every
    batch costs the same. The last batch of an epoch may be smaller.

    Args:
        examples: Split to draw from.
        task: Zero-based index of the task.
        batch_size: Examples per batch.
        seed: The run's seed.
    """

    def __init__(self, examples: Examples, *, task: int, batch_size: int, seed: int) -> None:
        self._examples, self._batch_size = examples, batch_size
        self._order = lru_cache(maxsize=1)(partial(_shuffled, len(examples), seed, task))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self._examples) // self._batch_size)

    def at(self, epoch: int, batch: int) -> Batch:
        """Return batch ``batch`` of epoch ``epoch``, both zero-based."""
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of an epoch that has {len(self)} batches")
        first = batch * self._batch_size
        return self._examples.batch(self._order(epoch)[first : first + self._batch_size])


def _shuffled(count: int, *key: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(derived_seed(*key)).permutation(count)
