"""A finished experiment learns one more task: all of it, or it stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny
from plora_cl import load_experiment, verify
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.main import main
from plora_cl.compute import environment
from plora_cl.errors import (
    IncompatibleCheckpointError,
    RunStoppedError,
    SettingsError,
    TrainingError,
)
from plora_cl.training.adding import add_task
from plora_cl.training.reporting import Reporter
from plora_cl.training.stopping import StopRequest
from training.evidence import evidence
from training.going_on import train


@pytest.fixture(scope="module")
def learned(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an experiment that has learned the first two tasks."""
    two = {**settings, "tasks": settings["tasks"][:2]}
    return train(two, tmp_path_factory.mktemp("learned"))[0]


@pytest.fixture
def experiment(learned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned, tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    """Return every file but the lock, whose record says who held it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != ".lock"}


def test_it_ends_as_a_run_that_learned_all_tasks(
    experiment: Path, whole: Path, settings: dict[str, Any]
) -> None:
    before = {entry.name for entry in CheckpointStore(experiment / "checkpoints").entries()}
    added = add_task(experiment, settings["tasks"][2])
    assert added.name == "food"
    expected, found = evidence(whole), evidence(experiment)
    last = [name for name in expected if "_task2_epoch1_batch4.pt/" in name]
    last.remove("checkpoint_task2_epoch1_batch4.pt/scores")  # no untrained score of a later task
    assert {name: found[name] for name in last} == {name: expected[name] for name in last}
    assert found["accuracy"] == expected["accuracy"]
    assert verify(experiment).is_intact
    assert {entry.name for entry in CheckpointStore(experiment / "checkpoints").entries()} > before
    assert not experiment.with_name("run.adding").exists()
    assert "are already learned" in _resumed(experiment)
    assert [task.name for task in load_experiment(experiment).tasks] == list(tiny.TOPICS)


def _resumed(experiment: Path) -> str:
    listener = train(
        {"experiment_name": experiment.name},
        experiment.parent,
        resume=True,
        **_recorded(experiment),
    )[1]
    return "\n".join(listener.messages)


def _recorded(experiment: Path) -> dict[str, Any]:
    from plora_cl.config.record import recorded_in

    values = recorded_in(experiment, True)[1]
    return {k: v for k, v in values.items() if k not in ("experiment_name", "experiment_dir")}


def test_a_fall_beyond_the_tolerance_leaves_every_file_as_it_was(
    experiment: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from plora_cl.training import adding

    real = adding._compared

    def lowered(results: dict[str, Any]) -> adding.Added:
        found = real(results)
        changes = {name: (before, before - 0.25) for name, (before, _) in found.changes.items()}
        return adding.Added(found.name, found.accuracy, changes, results)

    monkeypatch.setattr(adding, "_compared", lowered)
    before = content(experiment)
    with pytest.raises(TrainingError, match=r"lowered animals .*by more than 0\.2: .* stays"):
        add_task(experiment, settings["tasks"][2], tolerance=0.2)
    assert content(experiment) == before
    assert not experiment.with_name("run.adding").exists()
    assert add_task(experiment, settings["tasks"][2], tolerance=0.25).name == "food"


class Stopper(Reporter):
    """Asks to stop after some steps."""

    def __init__(self, stop: StopRequest, after: int) -> None:
        self._stop, self._left = stop, after

    def step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._stop.request("test", 130)


def test_stopped_at_any_step_it_leaves_the_experiment_and_continues(
    experiment: Path, settings: dict[str, Any], whole: Path
) -> None:
    before = content(experiment)
    for after in (1, 3, 2):
        stop = StopRequest()
        with pytest.raises(RunStoppedError):
            add_task(experiment, settings["tasks"][2], reporter=Stopper(stop, after), stop=stop)
        assert content(experiment) == before
    add_task(experiment, settings["tasks"][2])
    assert evidence(experiment)["accuracy"] == evidence(whole)["accuracy"]


class Dying(Filesystem):
    """Dies at the n-th rename."""

    left = 0

    def rename(self, source: Path, target: Path) -> None:
        Dying.left -= 1
        if Dying.left == 0:
            raise KeyboardInterrupt
        super().rename(source, target)


def test_killed_while_it_takes_over_it_resumes_to_the_same_end(
    experiment: Path, settings: dict[str, Any], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plora_cl.training import adding

    real, kills = adding._take_over, 0

    def dying(work: Path, home: Path, resolved: Any, _: Filesystem) -> None:
        Dying.left = kills + 1
        real(work, home, resolved, Dying())

    monkeypatch.setattr(adding, "_take_over", dying)
    while True:
        try:
            add_task(experiment, settings["tasks"][2])
            break
        except KeyboardInterrupt:
            kills += 1
            assert verify(experiment).is_intact
            assert load_experiment(experiment).predict(["a day"], "weather")
    assert kills > 8
    assert evidence(experiment)["accuracy"] == evidence(whole)["accuracy"]
    assert "are already learned" in _resumed(experiment)


def test_other_libraries_are_compared_and_old_scores_measured_again(
    experiment: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = environment._version
    monkeypatch.setattr(
        environment, "_version", lambda name: "9.9" if name == "peft" else real(name)
    )
    before = content(experiment)
    with pytest.raises(IncompatibleCheckpointError, match=r"peft"):
        add_task(experiment, settings["tasks"][2])
    assert content(experiment) == before
    assert not experiment.with_name("run.adding").exists()
    add_task(experiment, settings["tasks"][2], accept_changes=True)
    lines = (experiment / "results/run_log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    measured = [line["on"] for line in log if line["event"] == "evaluation" and line["task"] == 2]
    assert measured == [0, 1, 2]


def test_what_cannot_be_added_is_refused_in_one_line(
    experiment: Path,
    stopped: Path,
    settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SettingsError, match="has not learned all of its 3 tasks; resume it"):
        add_task(stopped, settings["tasks"][2])
    before = content(experiment)
    assert main(["add-task", str(tmp_path / "no"), "--task", settings["tasks"][2]]) == 2
    assert main(["add-task", str(experiment), "--task", str(tmp_path / "nowhere")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert content(experiment) == before
    assert main(["add-task", str(experiment), "--task", settings["tasks"][2], "--quiet"]) == 0
