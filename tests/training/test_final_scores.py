"""Final scores of runs that are stopped while they are measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plora_cl.errors import RunStoppedError
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.going_on import Listener, newest, train


class StopsAt(Listener):
    """Asks for a stop at the first unit of one work."""

    def __init__(self, work: str, stop: StopRequest) -> None:
        super().__init__()
        self._work, self._stop = work, stop

    def activity(self, unit: Unit, /) -> None:
        if unit.what == self._work:
            self._stop.request("test", 130)


def results(experiment: Path) -> dict[str, Any]:
    content = (experiment / "results" / "final_results.json").read_bytes()
    found: dict[str, Any] = json.loads(content)
    return found


def measure_until(settings: dict[str, Any], folder: Path, work: str) -> Path:
    """Resume a finished run; stop it at the first batch of ``work``."""
    stop = StopRequest()
    reporter = StopsAt(work, stop)
    trainer = CLTrainer(reporter=reporter, stop=stop, **{**settings, "experiment_dir": str(folder)})
    with pytest.raises(RunStoppedError):
        trainer.train_sequence(resume="auto")
    return trainer.folder


@pytest.fixture(scope="module")
def moving(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings under which learning a task changes predictions of those before it."""
    off = dict.fromkeys(("use_ewc", "use_orthogonal", "use_router"), False)
    fast = {"shared": "lora", "epochs": 3, "learning_rate": 0.03}
    return {**settings, **off, **fast, "measure_validation": True}


@pytest.fixture(scope="module")
def two_tasks(moving: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    return train({**moving, "tasks": moving["tasks"][:2]}, folder)[0]


@pytest.fixture(scope="module")
def appended(
    moving: dict[str, Any], two_tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Results of the two tasks and a third, without any stop."""
    folder = tmp_path_factory.mktemp("three")
    shutil.copytree(two_tasks, folder / "run")
    return results(train(moving, folder)[0])


@pytest.mark.parametrize("work", ["classes of weather", "validation on weather"])
def test_a_task_that_is_appended_after_a_stop_leaves_no_scores_of_the_model_before_it(
    moving: dict[str, Any],
    two_tasks: Path,
    appended: dict[str, Any],
    tmp_path: Path,
    work: str,
) -> None:
    shutil.copytree(two_tasks, tmp_path / "run")
    measure_until({**moving, "tasks": moving["tasks"][:2]}, tmp_path, work)
    assert newest(tmp_path / "run").state["under_way"]["by_class"]
    again = results(train(moving, tmp_path)[0])
    assert again["by_class"] == appended["by_class"]
    assert again["validation"] == appended["validation"]
    before = results(two_tasks)
    assert before["by_class"]["animals"] != again["by_class"]["animals"]
    assert before["validation"]["accuracy"] != again["validation"]["accuracy"][:2]


def test_final_scores_that_are_kept_are_of_the_same_weights(
    moving: dict[str, Any], two_tasks: Path, tmp_path: Path
) -> None:
    two = {**moving, "tasks": moving["tasks"][:2]}
    shutil.copytree(two_tasks, tmp_path / "run")
    measure_until(two, tmp_path, "validation on weather")
    stopped = CLTrainer(**{**two, "experiment_dir": str(tmp_path)})
    newest_path = stopped.get_latest_checkpoint()
    assert newest_path is not None
    stopped.load_checkpoint(newest_path)
    under_way = stopped.run.components.under_way
    classes, scores = under_way.by_class, under_way.scores
    assert classes.keys() == {0, 1}
    under_way.by_class = {task: (key, None) for task, (key, _) in classes.items()}
    under_way.scores = {task: (key, (2.0, 2.0)) for task, (key, _) in scores.items()}
    kept = stopped.run.final_scores(validation=True)
    assert set(kept.by_class.values()) == {None}
    assert kept.validation is not None
    assert kept.validation[0] == (2.0, 2.0)
    for task in classes:
        under_way.by_class[task] = "of other weights", None
        under_way.scores[task] = "of other weights", (2.0, 2.0)
    fresh = stopped.run.final_scores(validation=True)
    assert fresh.by_class == results(two_tasks)["by_class"]
    assert fresh.validation is not None
    accuracies = [accuracy for accuracy, _ in fresh.validation]
    assert accuracies == results(two_tasks)["validation"]["accuracy"]


def test_scores_from_before_there_were_keys_are_loaded_as_they_are_and_never_taken() -> None:
    old = {
        "scores": {0: [0.5, 0.25]},
        "by_class": {0: None, 1: {"cat": {"recall": 1.0}}},
        "passes": {},
    }
    under_way = UnderWay()
    under_way.load_state_dict(old)
    assert under_way.state_dict() == old
    assert [key for key, _ in under_way.by_class.values()] == ["", ""]
    assert under_way.scores == {0: ("", (0.5, 0.25))}
