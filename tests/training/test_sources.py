"""Results say what their texts were picked from; checkpoints do without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plora_cl.baselines.floor_run import learn_floor
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.schema import Settings
from plora_cl.training.reporting import Reporter
from training.going_on import train


def data(experiment: Path) -> dict[str, Any]:
    """Return what results say of the first task's texts."""
    results = json.loads((experiment / "results" / "final_results.json").read_bytes())
    found: dict[str, Any] = results["identity"]["data"][0]
    return found


def test_what_texts_were_picked_from_is_the_same_whatever_was_picked(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    short = {**settings, "tasks": settings["tasks"][:1], "epochs": 1, "max_train_examples": 12}
    one, _ = train(short, tmp_path / "one", seed=1)
    two, _ = train(short, tmp_path / "two", seed=2, max_length=8, measure_validation=True)
    floor = tmp_path / "floor"
    learn_floor(
        Settings(**{**short, "experiment_dir": str(floor), "experiment_name": "run"}),
        Reporter(),
    )
    assert data(one)["train"] != data(two)["train"]
    assert data(one)["source"] == data(two)["source"] == data(floor / "run")["source"]
    assert len(data(one)["source"]) == 64


def test_a_checkpoint_holds_what_it_held_before(settings: dict[str, Any], tmp_path: Path) -> None:
    short = {**settings, "tasks": settings["tasks"][:1], "epochs": 1}
    experiment, _ = train(short, tmp_path)
    store = CheckpointStore(experiment / "checkpoints")
    identity = decode(store.read(store.entries()[-1])).facts.identity
    kept = {name: value for name, value in data(experiment).items() if name != "source"}
    assert identity["data"] == [kept]
