"""Batches of several tasks, in equal shares."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from plora_cl.data.batches import Batch, BatchStream, Examples
from plora_cl.state import SeedFor, derived_seed


class MixtureStream:
    """Shuffled batches of all tasks, each batch of one task, addressable by ``(epoch, batch)``.

    Every task contributes the same number of batches to an epoch: the mean over the tasks, rounded
    up. Each task repeats its own examples, every pass in a new order, and an epoch continues where
    the previous one ended. An epoch therefore covers a part of a large task, and a small task
    several times.

    As in `BatchStream`, all orders are pure functions: of ``(seed, task, pass)`` within a task, of
    ``(seed, epoch)`` among tasks.

    Args:
        examples: Split to draw from, by task.
        batch_size: Examples per batch.
        seed: The run's seed.
    """

    def __init__(self, examples: Sequence[Examples], *, batch_size: int, seed: int) -> None:
        self._streams = [
            BatchStream(split, task=task, batch_size=batch_size, seed=seed)
            for task, split in enumerate(examples)
        ]
        self._share = -(-sum(map(len, self._streams)) // len(self._streams))
        self._turns = lru_cache(maxsize=1)(partial(_turns, len(self), self._share, seed))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._share * len(self._streams)

    def at(self, epoch: int, batch: int) -> Batch:
        """Return batch ``batch`` of epoch ``epoch``, both zero-based."""
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of an epoch that has {len(self)} batches")
        task, turn = divmod(int(self._turns(epoch)[batch]), self._share)
        stream = self._streams[task]
        return stream.at(*divmod(epoch * self._share + turn, len(stream)))


def _turns(batches: int, share: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return ``task * share + turn of the task`` of each batch of an epoch."""
    generator = np.random.default_rng(derived_seed(seed, 0, epoch, SeedFor.MIXTURE))
    tasks = generator.permutation(batches) // share
    turns = np.empty(batches, dtype=np.int64)
    turns[np.argsort(tasks, kind="stable")] = np.arange(batches)  # each task's turns in order
    return turns
