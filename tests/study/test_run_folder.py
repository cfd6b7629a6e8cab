"""Where a run stands, read from its folder."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import State, Status, results_of, status_of
from study.conftest import Planned, begin, finish


@pytest.fixture
def run(planned: Planned) -> PlannedRun:
    return planned()[0]


def test_a_run_without_a_folder_waits(run: PlannedRun) -> None:
    assert status_of(run).state is State.WAITING


def test_a_run_with_results_of_its_own_settings_is_done(run: PlannedRun) -> None:
    finish(run)
    assert status_of(run).state is State.DONE
    assert results_of(run) is not None


@pytest.mark.parametrize(
    ("changed", "shown"),
    [({"epochs": 9}, "epochs 9 -> 2"), ({"model_name": "x"}, "model_name 'x' -> "),
     ({"device": "cuda"}, "device 'cuda' -> 'auto'"), ({"seed": 4}, "seed 4 -> 1")],
)  # fmt: skip
def test_a_run_with_other_settings_is_told_apart(
    run: PlannedRun, changed: dict[str, Any], shown: str
) -> None:
    finish(run)
    begin(run, **changed)
    status = status_of(run)
    assert status.state is State.CHANGED
    assert f"other settings: {shown}" in status.detail
    assert str(run.folder) in status.detail
    assert results_of(run) is None


def test_settings_that_change_no_result_are_not_compared(run: PlannedRun) -> None:
    finish(run)
    begin(run, checkpoint_every=7, cache_dir="elsewhere")
    assert status_of(run).state is State.DONE


def test_results_of_an_earlier_run_in_the_folder_are_not_its_results(run: PlannedRun) -> None:
    # Started with --overwrite and killed: settings are the new ones, results the old ones.
    finish(run, identity={"epochs": 9, "data": []})
    assert results_of(run) is None
    assert status_of(run).state is State.WAITING


LEFT = {
    "trajectory": "0" * 64,
    "branch": 0,
    "checkpoint": "checkpoint_task0_epoch1_batch4.pt",
    "task": 0,
    "phase": "done",
    "step": 12,
    "state_digest": "1" * 64,
}


def resumed_with(key: str, impact: str) -> dict[str, Any]:
    change = {"key": key, "before": "1", "now": "2", "impact": impact}
    return {"id": "2" * 64, "branch": 1, "history": [{**LEFT, "changes": [change]}]}


def test_a_run_that_had_other_settings_on_the_way_belongs_to_no_study(run: PlannedRun) -> None:
    finish(run, trajectory=resumed_with("learning_rate", "trajectory-changing"))
    assert results_of(run) is None
    status = status_of(run)
    assert status.state is State.CHANGED
    assert "learning_rate 1 -> 2 after step 12" in status.detail
    assert str(run.folder) in status.detail


@pytest.mark.parametrize(
    ("key", "impact"),
    [("environment.threads", "trajectory-changing"), ("tasks[2]", "harmless")],
)
def test_another_machine_and_appended_tasks_on_the_way_are_no_other_settings(
    run: PlannedRun, key: str, impact: str
) -> None:
    finish(run, trajectory=resumed_with(key, impact))
    assert status_of(run).state is State.DONE


def test_results_that_do_not_say_what_made_them_do_not_count(run: PlannedRun) -> None:
    finish(run)
    path = run.folder / "results" / "final_results.json"
    content = json.loads(path.read_text())
    del content["identity"]
    path.write_text(json.dumps(content))
    assert results_of(run) is None


def test_torn_results_do_not_count(run: PlannedRun) -> None:
    finish(run)
    path = run.folder / "results" / "final_results.json"
    path.write_text(path.read_text()[:100])
    assert status_of(run).state is State.WAITING


STEPS = (
    '{"event": "step", "step": 9, "task": 0, "epoch": 1, "batch": 4, "loss": 0.75}',
    '{"event": "step", "step": 10, "task": 1, "epoch": 0, "batch": 0, "loss": 0.5}',
    '{"event": "evaluation", "step": 10, "task": 1, "epoch": 9}',
)


@pytest.mark.parametrize("torn", ["", '{"event": "step", "step": 11, "ta', "\x00\x00", "[1]"])
def test_a_running_run_shows_its_last_step(run: PlannedRun, torn: str) -> None:
    begin(run)
    (run.folder / "results").mkdir()
    (run.folder / "results" / "run_log.jsonl").write_text("\n".join([*STEPS, torn]))
    with ExperimentLock.acquire(run.folder):
        status = status_of(run)
    assert status == Status(State.RUNNING, "task 2 of 2: epoch 1/2, step 10, loss 0.5")


def test_a_run_without_a_step_shows_its_process(run: PlannedRun) -> None:
    begin(run)
    with ExperimentLock.acquire(run.folder):
        assert status_of(run) == Status(State.RUNNING, f"process {os.getpid()}")


def test_a_run_with_checkpoints_and_no_process_was_stopped(run: PlannedRun) -> None:
    begin(run)
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "checkpoint_task0_epoch0_batch0.pt").touch()
    assert status_of(run).state is State.STOPPED


def test_a_run_that_failed_says_how(run: PlannedRun) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "failure.json").write_text('{"exit_code": 2, "line": "Error: no", "at": ""}')
    assert status_of(run).detail == "exit code 2: Error: no"


@pytest.mark.parametrize(
    "content", ["{torn", "[]", '{"identity": null}', '{"identity": {}, "f1": {}}']
)
def test_damaged_results_are_reported(run: PlannedRun, content: str) -> None:
    finish(run)
    (run.folder / "results" / "final_results.json").write_text(content)
    assert results_of(run) is None
    status = status_of(run)
    assert status.state is State.WAITING
    assert status.detail == "results/final_results.json is damaged; the run writes it again"


def test_a_failure_that_says_little_is_a_failure(run: PlannedRun) -> None:
    begin(run)
    (run.folder / "failure.json").write_text('{"exit_code": 3}')
    assert status_of(run) == Status(State.FAILED, "exit code 3: ")


def test_the_floor_stays_done_when_settings_of_encoders_change(planned: Planned) -> None:
    floor = {"methods": ["tfidf"], "seeds": [1], "orders": {"aw": ["a", "w"]}}
    (run,) = planned(**floor)
    finish(run)
    for base, state in (
        ({"learning_rate": 0.5, "use_ewc": False}, State.DONE),
        ({"max_train_examples": 5}, State.CHANGED),
    ):
        (again,) = planned(**floor, base={"experiment_dir": "experiments", **base})
        assert status_of(again).state is state
