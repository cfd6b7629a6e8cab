"""How many replay examples come with a batch, and of which earlier task."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from plora_cl.state import StateDict


class Turn(NamedTuple):
    """What to replay now.

    Attributes:
        task: Index of the earlier task.
        first: Position in the endless sequence of passes over its pool.
        examples: How many to take from there on.
    """

    task: int
    first: int
    examples: int


class ReplaySchedule:
    """After ``n`` training examples exactly ``floor(ratio * n)`` have been replayed; a `Stateful`.

    Args:
        ratio: Replayed examples per training example.
    """

    def __init__(self, ratio: Fraction) -> None:
        self._ratio = ratio
        self.restart()

    def restart(self) -> None:
        """Begin another task."""
        self._seen = self._turn = 0
        self._taken: dict[int, int] = {}

    def next(self, examples: int, tasks: Sequence[int]) -> Turn | None:
        """Return what comes with a batch of ``examples``; None where nothing is due yet.

        Args:
            examples: Training examples of the batch.
            tasks: Earlier tasks that have a pool; they take turns.
        """
        before = int(self._ratio * self._seen)
        self._seen += examples
        count = int(self._ratio * self._seen) - before
        if not count or not tasks:
            return None
        task = tasks[self._turn % len(tasks)]
        self._turn += 1
        first = self._taken.get(task, 0)
        self._taken[task] = first + count
        return Turn(task, first, count)

    def state_dict(self) -> StateDict:
        """Return the counters."""
        taken = {str(task): count for task, count in self._taken.items()}
        return {"seen": self._seen, "turn": self._turn, "taken": taken}

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        self._seen, self._turn = state["seen"], state["turn"]
        self._taken = {int(task): count for task, count in state["taken"].items()}
