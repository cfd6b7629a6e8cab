"""What a run cost, summed over all its sessions."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plora_cl.state import StateDict


def peak_resident_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Costs:
    """Seconds by task and activity, steps and examples, kept when a run is resumed.

    Time is counted once: an activity inside another one stops the clock of the outer one.

    Args:
        clock: Monotonic seconds.
        peak_memory: Largest resident size of this process so far, in bytes.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        peak_memory: Callable[[], int] = peak_resident_bytes,
    ) -> None:
        self._clock, self._peak_memory = clock, peak_memory
        self._peak = 0
        self._seconds: dict[str, dict[str, float]] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._open: list[tuple[str, str]] = []
        self._since = 0.0

    @contextmanager
    def measure(self, task: str, activity: str) -> Iterator[None]:
        """Count the time inside the ``with`` block as ``activity`` of ``task``."""
        self._settle()
        self._open.append((task, activity))
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def count(self, task: str, *, steps: int, examples: int) -> None:
        """Add optimizer steps and training examples."""
        counts = self._counts.setdefault(task, {"steps": 0, "examples": 0})
        counts["steps"] += steps
        counts["examples"] += examples

    def summary(self) -> StateDict:
        """Return `state_dict` and ``total_seconds``."""
        state = self.state_dict()
        total = sum(value for by in self._seconds.values() for value in by.values())
        return {"total_seconds": total, **state}

    def state_dict(self) -> StateDict:
        """Return everything counted up to this instant: ``seconds``, ``counts``, peak memory."""
        self._settle()
        return {
            "seconds": {task: dict(by) for task, by in self._seconds.items()},
            "counts": {task: dict(by) for task, by in self._counts.items()},
            "peak_memory_bytes": self._peak,
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        self._seconds = {task: dict(by) for task, by in state["seconds"].items()}
        self._counts = {task: dict(by) for task, by in state["counts"].items()}
        self._peak = state["peak_memory_bytes"]

    def _settle(self) -> None:
        now = self._clock()
        if self._open:
            task, activity = self._open[-1]
            by_activity = self._seconds.setdefault(task, {})
            by_activity[activity] = by_activity.get(activity, 0.0) + now - self._since
            self._peak = max(self._peak, self._peak_memory())
        self._since = now
