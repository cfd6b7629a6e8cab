"""A checkpoint under a seal that is right, whose state is not one that a run saves."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError, TrainingError
from plora_cl.training.trainer import CLTrainer
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
    source: Any = snapshot if part == "state" else snapshot.facts
    tree = {part: deepcopy(getattr(source, part))}
    place = chance.choice(inner(tree)[1:])
    node: Any = tree
    for key in place[:-1]:
        node = node[key]
    plain = [odd for odd in ODD if not isinstance(odd, torch.Tensor | float)]
    node[place[-1]] = chance.choice(ODD if part == "state" else plain)
    odd = replace(source, **tree)
    odd = odd if part == "state" else replace(snapshot, facts=odd)
    said = refused(settings, here, path, odd)
    assert said is None or "\n" not in said


def test_objects_of_other_tensors_are_refused(settings: dict[str, Any], here: Path) -> None:
    store, path, snapshot = newest(here)
    # Resuming takes the encoder's files from the model
    others = (name for name in snapshot.objects if name.startswith(("memory/", "router/")))
    memory = next(others)
    for name in ("model/base", "model/adapter-0", memory):
        ref = store.objects.put(encode_object({"other": torch.zeros(2)}))
        wrong = replace(snapshot, objects={**snapshot.objects, name: ref})
        assert refused(settings, here, path, wrong) is not None


def put(tree: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    node: Any = tree
    for key in place[:-1]:
        node = node[key]
    assert place[-1] in (node if isinstance(node, dict) else range(len(node)))
    node[place[-1]] = value


GROUP, SCHEDULE = ("optimizer", "param_groups", 0), ("scheduler",)
UNUSABLE: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("optimizer", "state", 0, "exp_avg"), torch.zeros(3)),
    (("optimizer", "state", 0, "exp_avg"), None),
    (("optimizer", "state", 0, "exp_avg_sq"), torch.zeros(3)),
    (("optimizer", "state", 0, "exp_avg_sq"), "x"),
    (("optimizer", "state", 0, "step"), torch.tensor(-1.0)),
    (("optimizer", "state", 0, "step"), torch.zeros(3)),
    *(((*GROUP, "betas"), value) for value in ([], [0.9], [0.9, "x"], None, [2.0, 0.9])),
    *(((*GROUP, name), {"a": 1}) for name in ("eps", "amsgrad", "maximize", "foreach")),
    *(((*GROUP, "weight_decay"), value) for value in ("x", None, float("nan"))),
    *(((*SCHEDULE, "_last_lr"), value) for value in ([], None, ["x", "x"], 1.5)),
    *(((*SCHEDULE, "base_lrs"), value) for value in ([], None, ["x", "x"])),
    ((*SCHEDULE, "last_epoch"), 1 << 62),
    *(
        (("scores", "cells", 0, place), value)
        for place in (0, 1, 2, 3, 4)
        for value in (None, [[1]], -1, 1 << 62)
    ),
    (("scores", "untrained", 0, 1), "x"),
    (("scores", "routed", 0, 1), ["x"]),
    (("cursor", "batch"), (1 << 63) - 1),
    (("cursor", "task"), 7),
)


@pytest.mark.parametrize(("place", "value"), UNUSABLE, ids=lambda part: str(part).replace("\n", ""))
def test_a_value_that_no_step_could_compute_with_is_refused_before_one(
    settings: dict[str, Any], here: Path, place: tuple[Any, ...], value: Any
) -> None:
    _, path, snapshot = newest(here)
    state: dict[str, Any] = deepcopy(dict(snapshot.state))
    put(state, place, value)
    cursor = state["cursor"]
    said = refused(settings, here, path, replace(snapshot, state=state, cursor=cursor))
    assert said is not None
    assert path.name in said
    assert "\n" not in said


def test_a_schedule_does_not_lose_a_method_to_a_checkpoint(
    settings: dict[str, Any], here: Path
) -> None:
    _, path, snapshot = newest(here)
    state = deepcopy(snapshot.state)
    state["scheduler"]["step"] = 5
    said = refused(settings, here, path, replace(snapshot, state=state))
    assert said is not None
    assert "method step" in said


@pytest.mark.parametrize(
    "wrong",
    [
        *({"task_idx": task} for task in (5, -1, 3)),
        {"epoch": -1},
        *({"batch_idx": batch} for batch in (-5, 5, 10**6)),
    ],
    ids=str,
)
def test_a_checkpoint_of_a_batch_that_is_not_there_is_not_saved(
    settings: dict[str, Any], tmp_path: Path, wrong: dict[str, int]
) -> None:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(tmp_path)})
    optimizer = torch.optim.SGD(trainer.run.model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    place = {"task_idx": 0, "epoch": 0, "batch_idx": 4, **wrong}
    with pytest.raises(CheckpointError, match=r"expected .*0 to \d"):
        trainer.save_checkpoint(**place, optimizer=optimizer, scheduler=schedule)
    assert not (trainer.folder / "checkpoints").exists()
