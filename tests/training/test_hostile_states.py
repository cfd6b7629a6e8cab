"""A checkpoint under a seal that is right, whose state is not one that a run saves."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plora_cl.checkpoint.encoding import decode, encode
from plora_cl.checkpoint.objects import encode_object
from plora_cl.checkpoint.snapshot import Snapshot
from plora_cl.checkpoint.store import CheckpointStore
from plora_cl.errors import CheckpointError, TrainingError
from training.going_on import train

ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    "x",
    -1,
    1 << 62,
    1.5,
    float("nan"),
    [[1]],
    {"a": 1},
    torch.zeros(3),
)


def newest(folder: Path) -> tuple[CheckpointStore, Path, Snapshot]:
    store = CheckpointStore(folder / "run" / "checkpoints")
    path = store.entries()[-1].path
    return store, path, decode(path.read_bytes())


def refused(settings: dict[str, Any], folder: Path, path: Path, snapshot: Snapshot) -> str | None:
    """Return why ``snapshot`` in the place of a checkpoint is refused; None where it is not."""
    path.write_bytes(encode(snapshot))
    try:
        train(settings, folder, resume=path)
    except (CheckpointError, TrainingError) as error:
        return str(error)
    return None


COMPONENTS = (
    "optimizer", "scheduler", "scaler", "gradients", "methods", "early_stopping", "scores", "costs",
    "run_log", "cursor", "random", "model/shared", "model/adapter-1", "model/head-1",
)  # fmt: skip


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_of_another_kind_is_refused_by_name(
    settings: dict[str, Any], here: Path, component: str
) -> None:
    _, path, snapshot = newest(here)
    assert component in snapshot.state
    before = (here / "run" / "results" / "run_log.jsonl").read_bytes()
    odds: list[Any] = [None, {"a": 1}]
    for odd in odds:
        wrong = replace(snapshot, state={**snapshot.state, component: odd})
        said = refused(settings, here, path, wrong)
        assert said is not None
        assert path.name in said
        assert "\n" not in said
    assert (here / "run" / "results" / "run_log.jsonl").read_bytes() == before


def inner(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
    return [p for key, value in items for p in ((*path, key), *inner(value, (*path, key)))]


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(12))
def test_odd_values_inside_are_refused_or_change_nothing_but_numbers(
    settings: dict[str, Any], here: Path, seed: int
) -> None:
    _, path, snapshot = newest(here)
    chance = random.Random(seed)
    part = chance.choice(("state", "identity", "environment", "settings"))
    tree = {part: deepcopy(getattr(snapshot, part))}
    place = chance.choice(inner(tree)[1:])
    node: Any = tree
    for key in place[:-1]:
        node = node[key]
    plain = [odd for odd in ODD if not isinstance(odd, torch.Tensor | float)]
    node[place[-1]] = chance.choice(ODD if part == "state" else plain)
    said = refused(settings, here, path, replace(snapshot, **tree))
    assert said is None or "\n" not in said


def test_objects_of_other_tensors_are_refused(settings: dict[str, Any], here: Path) -> None:
    store, path, snapshot = newest(here)
    memory = next(name for name in snapshot.objects if not name.startswith("model/"))
    for name in ("model/base", "model/adapter-0", memory):
        ref = store.objects.put(encode_object({"other": torch.zeros(2)}))
        wrong = replace(snapshot, objects={**snapshot.objects, name: ref})
        assert refused(settings, here, path, wrong) is not None
