"""Whole runs whose language model is tuned on each task, stopped inside and after the tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plora_cl.errors import IncompatibleCheckpointError, RunStoppedError
from plora_cl.state import Phase
from plora_cl.training.reporting import Reporter
from plora_cl.training.stopping import StopRequest
from plora_cl.units import Unit
from training.evidence import evidence
from training.going_on import events, newest
from training.test_replay import AtTask, PowerCut, cut, train


class Tuning(Reporter):
    """Notes the batches of tuning, and does something at the chosen one."""

    def __init__(self, at: int = 0, act: Callable[[], object] | None = None) -> None:
        self.batches: list[tuple[str, int, int]] = []
        self._at, self._act = at, act

    def activity(self, unit: Unit, /) -> None:
        if unit.what.startswith("replay: tuning"):
            self.batches.append(unit)
            if len(self.batches) == self._at and self._act is not None:
                self._act()


@pytest.fixture(scope="module")
def tuning(
    settings: dict[str, Any], generator: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return {
        **settings,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "epochs": 1,
        "use_replay": True,
        "replay_ratio": 0.3,
        "replay_tuning": True,
        "replay_tuning_examples": 10,
        "replay_tuning_epochs": 2,
        "replay_tuning_learning_rate": 0.05,
        "replay_tuning_r": 2,
        "generation_model": str(generator),
        "generation_batch_size": 4,
        "max_gen_length": 6,
        "keep_last_n_checkpoints": 9,
    }


@pytest.fixture(scope="module")
def whole(tuning: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuning]:
    counter = Tuning()
    return train(tmp_path_factory.mktemp("whole"), tuning, reporter=counter), counter


@pytest.fixture(scope="module")
def expected(whole: tuple[Path, Tuning]) -> dict[str, Any]:
    return evidence(whole[0])


def test_every_task_is_tuned_on_and_its_lora_is_stored_once(whole: tuple[Path, Tuning]) -> None:
    folder, counter = whole
    batches = [(done, 6) for done in range(1, 7)]
    assert [unit[1:] for unit in counter.batches] == batches * 3
    assert len(dict.fromkeys(what for what, _, _ in counter.batches)) == 3
    objects = newest(folder).objects
    loras = [objects[f"memory/replay/generator-{task}"] for task in range(3)]
    assert len({ref.sha256 for ref in loras}) == 3
    report = events(folder, "methods")[-1]["report"]["replay"]["tuning"]
    assert set(report) == {"animals", "weather", "food"}
    assert all(r["last_epoch_loss"] < r["first_epoch_loss"] for r in report.values())


@pytest.mark.parametrize("batch", [1, 6, 8])
def test_a_run_whose_power_fails_while_it_tunes_ends_like_one_that_was_not_stopped(
    tmp_path: Path,
    tuning: dict[str, Any],
    whole: tuple[Path, Tuning],
    expected: dict[str, Any],
    batch: int,
) -> None:
    with pytest.raises(PowerCut):
        train(tmp_path, tuning, reporter=Tuning(batch, cut))
    assert newest(tmp_path / "run").cursor["phase"] == Phase.CONSOLIDATE
    rest = Tuning()
    assert evidence(train(tmp_path, tuning, reporter=rest)) == expected
    assert rest.batches == whole[1].batches[6 * ((batch - 1) // 6) :]


def test_asked_to_stop_while_it_tunes_it_stops_and_goes_on_after_that_batch(
    tmp_path: Path, tuning: dict[str, Any], whole: tuple[Path, Tuning], expected: dict[str, Any]
) -> None:
    stop = StopRequest()
    request = Tuning(9, lambda: stop.request("SIGTEST", 99))
    with pytest.raises(RunStoppedError):
        train(tmp_path, tuning, reporter=request, stop=stop)
    assert len(request.batches) == 9
    rest = Tuning()
    assert evidence(train(tmp_path, tuning, reporter=rest)) == expected
    assert rest.batches == whole[1].batches[9:]


@pytest.mark.parametrize("task", [1, 2])
def test_what_was_tuned_outlives_a_power_cut_and_is_what_writes(
    tmp_path: Path,
    tuning: dict[str, Any],
    whole: tuple[Path, Tuning],
    expected: dict[str, Any],
    task: int,
) -> None:
    """Without the cache: the texts come from the restored LoRA."""
    settings = {**tuning, "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(PowerCut):
        train(tmp_path, settings, reporter=AtTask(task))
    for path in (tmp_path / "cache").rglob("*.json"):
        path.unlink()
    rest = Tuning()
    assert evidence(train(tmp_path, settings, reporter=rest)) == expected
    assert rest.batches == whole[1].batches[6 * task :]


def test_tuning_changes_what_is_replayed_and_learned(
    whole: tuple[Path, Tuning], tmp_path: Path, tuning: dict[str, Any]
) -> None:
    without = train(tmp_path, {**tuning, "replay_tuning": False})
    mine, other = newest(whole[0]), newest(without)
    assert mine.objects["model/adapter-0"] == other.objects["model/adapter-0"]
    assert mine.objects["model/adapter-1"] != other.objects["model/adapter-1"]
    assert not [name for name in other.objects if "generator-" in name]


def test_it_cannot_be_switched_on_for_tasks_whose_texts_are_gone(
    tmp_path: Path, tuning: dict[str, Any]
) -> None:
    with pytest.raises(PowerCut):
        train(tmp_path, {**tuning, "replay_tuning": False}, reporter=AtTask(1))
    with pytest.raises(IncompatibleCheckpointError, match="replay_tuning"):
        train(tmp_path, tuning)
