"""Results of unfinished passes over splits, which survive a stop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from plora_cl.data.batches import Batch
from plora_cl.data.split import Split
from plora_cl.state import StateDict
from plora_cl.units import Unit, Units

ByClass = dict[str, dict[str, float]]
"""Precision, recall, F1 and number of examples of each class."""

ResultsOf = Callable[[Batch, int], Mapping[str, Tensor]]
"""Takes a batch and the place of its first example in the order of the pass; returns tensors with
a row for each example, on the CPU."""


@dataclass(slots=True)
class _Pass:
    """A pass over a split: results by name, a row for each example, of which some are done."""

    key: str
    done: int = 0
    results: dict[str, Tensor] = field(default_factory=dict)

    def add(self, found: Mapping[str, Tensor], total: int) -> None:
        rows = len(next(iter(found.values())))
        for name, values in found.items():
            if name not in self.results:
                self.results[name] = values.new_zeros(total, *values.shape[1:])
            self.results[name][self.done : self.done + rows] = values
        self.done += rows


class UnderWay:
    """Results of measuring and routing that is not finished, as a `Stateful`.

    It is part of a checkpoint only while it holds anything. The tensors of its `state_dict` are
    live: settle a save before the next unit.

    Attributes:
        scores: By task that was measured: a key that identifies what decides its scores, and
            accuracy and macro-F1. They count only under the same key.
        by_class: The same for the scores of each class.
    """

    def __init__(self) -> None:
        self.scores: dict[int, tuple[str, tuple[float, float]]] = {}
        self.by_class: dict[int, tuple[str, ByClass | None]] = {}
        self._passes: dict[str, _Pass] = {}

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self.scores or self.by_class or self._passes)

    def pass_over(
        self,
        split: Split,
        batch_size: int,
        results_of: ResultsOf,
        *,
        name: str,
        key: str,
        what: str,
    ) -> Units[Mapping[str, Tensor]]:
        """Return the results of every example, in the order of `Split.in_order`; keep them.

        A unit is a batch. Continues after the last batch that is done, also in another process.

        Args:
            split: What to go through.
            batch_size: Examples of a batch.
            results_of: See `ResultsOf`.
            name: Of the pass; one pass of a name is kept at a time, until `forget`.
            key: Identifies what decides the results apart from the weights in the checkpoint.
            what: The name of the work.
        """
        mine = self._passes.get(name)
        if mine is None or mine.key != key:
            mine = self._passes[name] = _Pass(key)
        for batch in split.in_order(batch_size, first=mine.done):
            mine.add(results_of(batch, mine.done), len(split))
            yield Unit(what, mine.done, len(split))
        return mine.results

    def forget(self, *names: str) -> None:
        """Remove the results of passes: they are recorded elsewhere."""
        for name in names:
            self._passes.pop(name, None)

    def clear(self) -> None:
        """Remove everything."""
        self.scores, self.by_class, self._passes = {}, {}, {}

    def state_dict(self) -> StateDict:
        """Return everything; tensors are live."""
        return {
            "scores": {
                task: [*([key] if key else []), *found]
                for task, (key, found) in self.scores.items()
            },
            "by_class": {
                task: [key, copy.deepcopy(found)] if key else copy.deepcopy(found)
                for task, (key, found) in self.by_class.items()
            },
            "passes": {
                name: {"key": one.key, "done": one.done, "results": dict(one.results)}
                for name, one in self._passes.items()
            },
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`; scores from before there were keys have an empty one."""
        self.scores = {}
        for task, found in state["scores"].items():
            *key, accuracy, f1 = found
            self.scores[task] = key[0] if key else "", (accuracy, f1)
        self.by_class = {
            task: (found[0], found[1]) if isinstance(found, list) else ("", found)
            for task, found in copy.deepcopy(state["by_class"]).items()
        }
        self._passes = {
            name: _Pass(one["key"], one["done"], dict(one["results"]))
            for name, one in state["passes"].items()
        }
