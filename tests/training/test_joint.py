"""Joint training: one stage at the last task, in which all tasks are learned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.learners import LEARNERS
from plora_cl.errors import IncompatibleCheckpointError, RunStoppedError
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import cut, events, newest, refusal, train
from training.test_stopping import SaysWhenTrainingBegins, StopsAtBatch

HEADS = {f"model/head-{task}" for task in range(3)}


class Watcher(Reporter):
    def __init__(self) -> None:
        self.started: list[tuple[object, ...]] = []
        self.tables: list[list[list[str]]] = []

    def task_started(self, *what: object) -> None:
        self.started.append(what)

    def table(self, title: str, columns: Any, rows: Any, /) -> None:
        self.tables.append(rows)


@pytest.fixture(scope="module")
def joint(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, **LEARNERS["joint"]}


@pytest.fixture(scope="module")
def finished(joint: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(joint, tmp_path_factory.mktemp("joint"), early_stopping_patience=5)[0]


@pytest.fixture(scope="module")
def results(finished: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((finished / "results" / "final_results.json").read_text())
    return found


def test_all_tasks_are_measured_once_at_the_end(finished: Path, results: dict[str, Any]) -> None:
    matrix = np.array(results["accuracy_matrix"], dtype=float)
    assert np.isnan(matrix[:2]).all()
    assert np.isfinite(matrix[2]).all()
    assert results["average_accuracy"] == pytest.approx(matrix[2].mean())
    assert [record["on"] for record in events(finished, "evaluation")] == [0, 1, 2]
    assert {record["task"] for record in events(finished, "evaluation")} == {2}


def test_what_compares_with_an_earlier_row_is_not_defined(results: dict[str, Any]) -> None:
    undefined = ("backward_transfer", "forward_transfer", "forgetting", "learning_accuracy")
    for metric in (*undefined, "average_anytime_accuracy"):
        assert results[metric] is None
        assert results["f1"][metric] is None
    assert results["zero_by_construction"] == {}
    assert all(accuracy is not None for accuracy in results["untrained_accuracy"])


def test_the_router_learns_every_task(finished: Path, results: dict[str, Any]) -> None:
    assert results["routed"]["average_accuracy"] is not None
    assert {f"router/task-{k}" for k in range(3)} <= newest(finished).objects.keys()


def test_early_stopping_goes_by_the_mean_over_all_tasks(
    joint: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"early_stopping_patience": 5, "epochs": 3, "learning_rate": 0.003, "shared": "all"}
    experiment, _ = train({**joint, **changes}, tmp_path)
    found = events(experiment, "validation")
    assert [(r["epoch"], r["task"]) for r in found] == [(e, t) for e in range(3) for t in range(3)]
    means = [np.mean([r["accuracy"] for r in found if r["epoch"] == e]) for e in range(3)]
    best = newest(experiment).state["early_stopping"]["best"]
    assert best == pytest.approx(max(means))
    for task in range(3):
        assert best != max(r["accuracy"] for r in found if r["task"] == task)


def test_the_schedule_rises_and_falls_once(finished: Path) -> None:
    rates = [record["learning_rate"] for record in events(finished, "step")]
    assert len(rates) == 2 * 3 * 5
    peak = int(np.argmax(rates))
    assert peak == 3
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()


def test_checkpoints_are_of_the_last_task_and_every_head_changes_until_the_end(
    joint: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    experiment = cut(joint, tmp_path)
    names = [entry.path.name for entry in CheckpointStore(experiment / "checkpoints").entries()]
    assert names[-1] == "checkpoint_task2_epoch0_batch11.pt"
    assert all(name.startswith("checkpoint_task2_") for name in names)
    inside, done = newest(experiment), newest(finished)
    assert not inside.trained_tasks
    assert {*inside.state} >= HEADS
    assert not HEADS & {*inside.objects}
    assert list(done.trained_tasks) == ["animals", "weather", "food"]
    assert {*done.objects} >= HEADS
    assert not HEADS & {*done.state}


def test_what_is_shown_speaks_of_one_stage(joint: dict[str, Any], tmp_path: Path) -> None:
    watcher = Watcher()
    CLTrainer(reporter=watcher, **{**joint, "experiment_dir": str(tmp_path)}).train_sequence()
    assert watcher.started == [(0, 1, "all tasks", 30, 0)]
    per_task, summary = watcher.tables
    assert [row[3] for row in per_task] == ["-", "-", per_task[2][4]]
    assert ["backward transfer", "not defined"] in summary


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"joint": False}, "joint"),
        ({"task_adapters": True}, "task_adapters"),
        ({"shared": "all"}, "shared"),
        ({"max_train_examples": 20}, "tasks[0].examples"),
        ({"batch_size": 4}, "batch_size"),
    ],
)
def test_what_a_joint_checkpoint_does_not_fit_is_refused_even_if_accepted(
    joint: dict[str, Any], tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    cut(joint, tmp_path)
    said = refusal(joint, tmp_path, accept=True, **change)
    assert re.search(rf"{re.escape(key)}: .+ in the checkpoint, now ", said)


@pytest.mark.parametrize("whole", [True, False])
def test_an_appended_task_is_refused_inside_and_after_joint_training(
    joint: dict[str, Any], tmp_path: Path, whole: bool
) -> None:
    two = {**joint, "tasks": joint["tasks"][:2]}
    if whole:
        train(two, tmp_path)
    else:
        cut(two, tmp_path)
    said = refusal(joint, tmp_path, accept=True)
    assert "tasks[2]: nothing in the checkpoint, now 'food', appended" in said
    assert "joint training learns all its tasks in one stage" in said
    assert "--overwrite" in said


def test_a_stream_is_not_gone_on_from_jointly(joint: dict[str, Any], tmp_path: Path) -> None:
    one_after_the_other = {**joint, "joint": False}
    cut(one_after_the_other, tmp_path)
    said = refusal(one_after_the_other, tmp_path, accept=True, joint=True)
    assert "joint: False in the checkpoint, now True" in said


def test_a_checkpoint_of_an_earlier_task_cannot_be_made_by_hand(
    joint: dict[str, Any], tmp_path: Path
) -> None:
    trainer = CLTrainer(**{**joint, "experiment_dir": str(tmp_path)})
    optimizer = trainer.run.components.random
    with pytest.raises(IncompatibleCheckpointError, match=r"its checkpoints are of task 2"):
        trainer.save_checkpoint(
            task_idx=1, epoch=0, batch_idx=0, optimizer=optimizer, scheduler=optimizer
        )


@pytest.mark.parametrize("batch", [1, 2, 5, 9, 14])
def test_it_stops_between_batches_of_different_tasks_of_one_step(
    joint: dict[str, Any], tmp_path: Path, batch: int
) -> None:
    accumulating = {**joint, "gradient_accumulation_steps": 4, "keep_last_n_checkpoints": 1}
    expected = evidence(train(accumulating, tmp_path / "whole")[0])
    stop = StopsAtBatch(batch)
    trainer = CLTrainer(
        reporter=SaysWhenTrainingBegins(stop),
        stop=stop,
        **{**accumulating, "experiment_dir": str(tmp_path)},
    )
    with pytest.raises(RunStoppedError):
        trainer.train_sequence()
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    cursor = decode(store.read(store.entries()[-1])).cursor
    assert cursor["epoch"] * 15 + cursor["batch"] == batch
    assert evidence(train(accumulating, tmp_path)[0]) == expected


def test_joint_training_of_adapters_changes_all_of_them(
    joint: dict[str, Any], tmp_path: Path
) -> None:
    for composition in ("isolated", "cumulative"):
        adapted = {"task_adapters": True, "shared": "layernorm", "composition": composition}
        experiment, _ = train({**joint, **adapted}, tmp_path / composition)
        store = CheckpointStore(experiment / "checkpoints")
        objects = store.manifest(store.entries()[-1]).objects
        assert {f"model/adapter-{k}" for k in range(3)} <= objects.keys()
