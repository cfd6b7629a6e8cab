"""What has been written so far of the replay examples of one earlier task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from plora_cl.generation.postprocess import DIGEST_BYTES
from plora_cl.state import StateDict

_FATES = ("kept", "empty", "duplicate", "disagreed", "surplus")


class Draft:
    """Kept texts, and counts of every text that was generated, as a `Stateful`.

    Args:
        quotas: Texts wanted of each class.

    Attributes:
        chunks: Chunks generated for each class.
        tokens: New tokens generated for each class.
        kept: Texts kept of each class.
        fates: Texts by what became of them; they add up to all that were generated.
        equal_to_training_text: Kept texts that a training text of the task equals, up to case and
            white space.
    """

    def __init__(self, quotas: Sequence[int]) -> None:
        self.quotas = list(quotas)
        self.chunks, self.tokens, self.kept = ([0] * len(quotas) for _ in range(3))
        self.fates = dict.fromkeys(_FATES, 0)
        self.equal_to_training_text = 0
        self._ids: list[list[int]] = []
        self._labels: list[int] = []
        self._digests: dict[bytes, None] = {}

    def knows(self, digest: bytes) -> bool:
        """Tell whether a text with this normalised digest is kept."""
        return digest in self._digests

    def keep(self, ids: Sequence[int], label: int, digest: bytes) -> None:
        """Keep a text."""
        self._ids.append(list(ids))
        self._labels.append(label)
        self._digests[digest] = None
        self.kept[label] += 1
        self.fates["kept"] += 1

    def is_settled(self, label: int, budget: int) -> bool:
        """Tell whether enough texts of a class are kept, or its ``budget`` of tokens is used up."""
        return self.kept[label] >= self.quotas[label] or self.tokens[label] >= budget

    def settled(self, budgets: Sequence[int]) -> int:
        """Return how many of the texts wanted are kept or given up."""
        return sum(
            quota if self.is_settled(label, budgets[label]) else self.kept[label]
            for label, quota in enumerate(self.quotas)
        )

    def group(self) -> dict[str, Tensor]:
        """Return the texts as tensors, see `ReplayPool`."""
        return {
            "input_ids": torch.tensor(list(chain.from_iterable(self._ids)), dtype=torch.int32),
            "lengths": torch.tensor([len(ids) for ids in self._ids], dtype=torch.int32),
            "labels": torch.tensor(self._labels, dtype=torch.int32),
        }

    def report(self) -> StateDict:
        """Return the counts as plain values."""
        return {
            "asked": sum(self.quotas),
            "generated": sum(self.fates.values()),
            **self.fates,
            "equal_to_training_text": self.equal_to_training_text,
            "tokens": sum(self.tokens),
            "kept_by_class": list(self.kept),
        }

    def state_dict(self) -> StateDict:
        """Return everything, as new tensors and plain values."""
        return {
            **self.group(),
            "digests": as_tensor(list(self._digests)),
            "quotas": list(self.quotas),
            "chunks": list(self.chunks),
            "tokens": list(self.tokens),
            "fates": dict(self.fates),
            "equal_to_training_text": self.equal_to_training_text,
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        lengths = state["lengths"].tolist()
        rows = torch.split(state["input_ids"], lengths) if lengths else ()
        self._ids = [row.tolist() for row in rows]
        self._labels = state["labels"].tolist()
        self._digests = dict.fromkeys(as_digests(state["digests"]))
        self.quotas, self.chunks = list(state["quotas"]), list(state["chunks"])
        self.tokens, self.fates = list(state["tokens"]), dict(state["fates"])
        self.equal_to_training_text = state["equal_to_training_text"]
        self.kept = [self._labels.count(label) for label in range(len(self.quotas))]


def as_tensor(digests: Sequence[bytes]) -> Tensor:
    """Return digests of texts as ``[texts, 16]``, uint8."""
    joined = torch.tensor(list(b"".join(digests)), dtype=torch.uint8)
    return joined.reshape(len(digests), DIGEST_BYTES)


def as_digests(tensor: Tensor) -> list[bytes]:
    """Return what `as_tensor` was made from."""
    return [bytes(row) for row in tensor.tolist()]


def shares(total: int, among: int) -> list[int]:
    """Split ``total`` into ``among`` equal parts; the first ones take the remainder."""
    part, rest = divmod(total, among)
    return [part + (index < rest) for index in range(among)]


def quotas(total: int, classes: Sequence[int]) -> list[list[int]]:
    """Return how many texts to write of each class of each earlier task, 1 at least.

    Args:
        total: Texts wanted in all.
        classes: Number of classes of each earlier task.
    """
    return [
        [max(share, 1) for share in shares(of_task, count)]
        for of_task, count in zip(shares(total, len(classes)), classes, strict=True)
    ]
