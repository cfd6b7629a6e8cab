"""How two checkpoints differ, down to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plora_cl.checkpoint.snapshot.loading import Resumable
from plora_cl.state_digest import state_digest

TIMED = frozenset({"costs"})
"""Components that hold wall-clock times: they differ between any two runs."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """A plain value that is not the same.

    Attributes:
        name: Where it stands.
        first: In the first checkpoint, as text; None where it is absent.
        second: In the second.
    """

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor of equal shape and type that is not the same.

    Attributes:
        component: Part of the state, or name of the object, that it belongs to.
        name: Its name there.
        elements: How many it has.
        different_elements: How many of them differ in any bit.
        different_bits: How many bits differ.
        max_abs: Greatest absolute difference of two elements; NaN where one of them is NaN.
    """

    component: str
    name: str
    elements: int
    different_elements: int
    different_bits: int
    max_abs: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the second of two checkpoints differs from the first one.

    Attributes:
        cursor: The next position.
        settings: All settings; they count only as part of ``identity``.
        identity: What decides the result: settings, encoder and data.
        environment: Machine and libraries; does not count.
        tensors: Of the state and of objects.
        values: Everything else in the state, and tensors that have no counterpart of their shape.
        metrics: Accuracy and macro-F1, by ``cells/task learned/task measured``,
            ``routed/task learned/task measured`` or ``untrained/task measured``.
        timings: Wall-clock times; do not count.
        only_in_first: Parts of the state and objects that the second checkpoint lacks.
        only_in_second: Those that the first one lacks.
    """

    cursor: list[ValueDifference]
    settings: list[ValueDifference]
    identity: list[ValueDifference]
    environment: list[ValueDifference]
    tensors: list[TensorChange]
    values: list[ValueDifference]
    metrics: list[ValueDifference]
    timings: list[ValueDifference]
    only_in_first: list[str]
    only_in_second: list[str]

    @property
    def is_same(self) -> bool:
        """Whether both runs continue equally, given the same machine and libraries."""
        return not (self.cursor or self.identity or self.tensors or self.values or self.metrics)


def compare(first: Resumable, second: Resumable) -> Comparison:
    """Return how ``second`` differs from ``first``."""
    one, two = first.snapshot, second.snapshot
    tensors: list[TensorChange] = []
    values = _changes(
        {"seed": one.facts.seed, "loss": one.loss, "trained_tasks": one.trained_tasks},
        {"seed": two.facts.seed, "loss": two.loss, "trained_tasks": two.trained_tasks},
    )
    timings: list[ValueDifference] = []
    metrics: list[ValueDifference] = []
    parts = [{**r.snapshot.state, **r.objects} for r in (first, second)]
    components, timed = {*parts[0], *parts[1]}, frozenset[str]()
    if one.facts.settings and two.facts.settings:  # names of other loops are their own
        metrics = _changes(_scores(one.state), _scores(two.state))
        # Cells are shown as metrics; anything else about scores must not get lost.
        components -= {"cursor", *(["scores"] if metrics else [])}
        timed = TIMED
    for component in sorted(components):
        found = timings if component in timed else values
        one_part, other_part = (part.get(component, _ABSENT) for part in parts)
        _compare(component, one_part, other_part, tensors, found)
    return Comparison(
        cursor=_changes(one.cursor, two.cursor),
        settings=_changes(one.facts.settings, two.facts.settings),
        identity=_changes(one.facts.identity, two.facts.identity),
        environment=_changes(one.facts.environment, two.facts.environment),
        tensors=tensors,
        values=values,
        metrics=metrics,
        timings=timings,
        only_in_first=sorted(components & (parts[0].keys() - parts[1].keys())),
        only_in_second=sorted(components & (parts[1].keys() - parts[0].keys())),
    )


def _compare(
    component: str, one: Any, two: Any, tensors: list[TensorChange], values: list[ValueDifference]
) -> None:
    if _same(one, two):
        return
    left, right = dict(_leaves(one, ())), dict(_leaves(two, ()))
    known = len(tensors) + len(values)
    for path in dict.fromkeys((*left, *right)):
        before, after = left.get(path, _ABSENT), right.get(path, _ABSENT)
        name = "/".join(map(str, path))
        if isinstance(before, Tensor) and isinstance(after, Tensor):
            if before.shape == after.shape and before.dtype == after.dtype:
                change = _tensor_change(component, name, before, after)
                if change is not None:
                    tensors.append(change)
                continue
        elif _same(before, after):
            continue
        values.append(ValueDifference(f"{component}: {name}", _shown(before), _shown(after)))
    if len(tensors) + len(values) == known:
        values.append(
            ValueDifference(component, "a list", "a mapping with the same content, or reversed")
        )


def _tensor_change(component: str, name: str, one: Tensor, two: Tensor) -> TensorChange | None:
    if not one.numel():
        return None
    left, right = (
        t.detach().contiguous().reshape(-1, 1).view(torch.uint8).numpy() for t in (one, two)
    )
    flipped = np.bitwise_count(left ^ right)
    differs = torch.from_numpy(flipped.any(axis=1))
    if not differs.any():
        return None
    a, b = one.reshape(-1)[differs], two.reshape(-1)[differs]
    wide = torch.complex128 if a.is_complex() else torch.float64
    largest = (a.to(wide) - b.to(wide)).abs().max()
    return TensorChange(
        component, name, one.numel(), int(differs.sum()), int(flipped.sum(dtype=np.int64)),
        float(largest),
    )  # fmt: skip


def _leaves(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Mapping) and node:
        items = list(node.items())
    elif isinstance(node, list | tuple) and node:
        items = list(enumerate(node))
    else:
        yield path, node
        return
    for key, value in items:
        yield from _leaves(value, (*path, key))


def _changes(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[ValueDifference]:
    return [
        ValueDifference(str(name), _shown(one.get(name, _ABSENT)), _shown(two.get(name, _ABSENT)))
        for name in sorted({*one, *two})
        if not _same(one.get(name, _ABSENT), two.get(name, _ABSENT))
    ]


def _same(one: Any, two: Any) -> bool:
    if one is _ABSENT or two is _ABSENT:
        return one is two
    return state_digest(one) == state_digest(two)


def _shown(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return repr(value)


def _scores(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return accuracy and F1 of each cell of the score matrix, without what it depended on."""
    found: dict[str, Any] = {}
    for kind, cells in state.get("scores", {}).items():
        for *place, accuracy, f1, _ in cells:
            # Of routed ones, what else was counted stands between the two tasks.
            where = (place[0], place[-1]) if kind == "routed" else place
            found["/".join((kind, *map(str, where)))] = [accuracy, f1]
    return found
