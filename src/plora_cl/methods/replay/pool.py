"""Replay examples of one earlier task, and the order in which they are learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from plora_cl.data.batches import Batch

SeedOfPass = Callable[[int], int]


class ReplayPool:
    """Tokenised texts with labels that are gone through again and again, shuffled each time.

    Args:
        group: ``input_ids [tokens]``, the texts one after the other, ``lengths [texts]``, and
            ``labels [texts]``; never changed.
        task: Zero-based index of the task they belong to.
        pad_token_id: Fills shorter rows of a batch, on the right.
        seed_of_pass: Seed of the order of each pass, counted from 0.
    """

    def __init__(
        self,
        group: Mapping[str, Tensor],
        *,
        task: int,
        pad_token_id: int,
        seed_of_pass: SeedOfPass,
    ) -> None:
        self.group = {name: tensor.cpu() for name, tensor in group.items()}
        self._task, self._pad_token_id, self._seed_of_pass = task, pad_token_id, seed_of_pass
        lengths = self.group["lengths"].tolist()
        self._rows = torch.split(self.group["input_ids"], lengths) if lengths else ()
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._rows)

    def batch(self, first: int, count: int) -> Batch:
        """Return ``count`` texts from position ``first`` of the endless sequence of passes on."""
        rows = [self._row(position) for position in range(first, first + count)]
        labels = self.group["labels"][rows].long()
        return padded(
            [self._rows[row].tolist() for row in rows], labels, self._task, self._pad_token_id
        )

    def _row(self, position: int) -> int:
        number, place = divmod(position, len(self))
        if self._order[0] != number:
            generator = np.random.default_rng(self._seed_of_pass(number))
            self._order = number, generator.permutation(len(self)).tolist()
        return self._order[1][place]


def padded(ids: Sequence[Sequence[int]], labels: Tensor, task: int, pad_token_id: int) -> Batch:
    """Return tokenised texts as a batch, padded on the right to the longest of them."""
    longest = max(map(len, ids))
    rows = [[*row, *[pad_token_id] * (longest - len(row))] for row in ids]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
    return Batch(torch.tensor(rows), torch.tensor(mask), labels, task)
