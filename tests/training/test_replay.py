"""Whole runs with generative replay by a tiny language model, stopped while it writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from generators import make_generator
from plora_cl.errors import IncompatibleCheckpointError, RunStoppedError
from plora_cl.state import Phase
from plora_cl.training import finishing
from plora_cl.training.reporting import Reporter
from plora_cl.training.run import run as run_module
from plora_cl.training.run.phases import learn
from plora_cl.training.run.run import Run
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import evidence
from training.going_on import events, newest


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it."""


class Writing(Reporter):
    """Counts the units of writing, and does something at the chosen one."""

    def __init__(self, at: int = 0, act: Callable[[], object] | None = None) -> None:
        self.units: list[tuple[str, int, int]] = []
        self._at, self._act = at, act

    def activity(self, unit: Unit, /) -> None:
        if unit.what.startswith("replay"):
            self.units.append(unit)
            if len(self.units) == self._at and self._act is not None:
                self._act()


class AtTask(Reporter):
    """Cuts the power when a task begins."""

    def __init__(self, task: int) -> None:
        self._task = task

    def task_started(self, index: int, *_: object) -> None:
        if index == self._task:
            raise PowerCut


def cut() -> None:
    raise PowerCut


@pytest.fixture(scope="module")
def replaying(
    settings: dict[str, Any], generator: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Settings of a run in which each later task is preceded by several chunks of writing."""
    return {
        **settings,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "use_replay": True,
        "replay_ratio": 0.3,
        "generation_model": str(generator),
        "generation_batch_size": 4,
        "max_gen_length": 6,
        "keep_last_n_checkpoints": 9,
    }


def train(folder: Path, settings: dict[str, Any], **parts: Any) -> Path:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder)}, **parts)
    trainer.train_sequence(resume="auto")
    return trainer.folder


@pytest.fixture(scope="module")
def whole(
    replaying: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Writing]:
    counter = Writing()
    return train(tmp_path_factory.mktemp("whole"), replaying, reporter=counter), counter


@pytest.fixture(scope="module")
def expected(whole: tuple[Path, Writing]) -> dict[str, Any]:
    return evidence(whole[0])


ACCUMULATING = {"gradient_accumulation_steps": 3, "epochs": 1}


@pytest.fixture(scope="module")
def accumulating(
    replaying: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return the evidence of a run with 3 + 2 batches per optimizer step."""
    return evidence(train(tmp_path_factory.mktemp("whole"), {**replaying, **ACCUMULATING}))


def uncached(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return ``settings`` with a cache that holds no generated text."""
    return {**settings, "cache_dir": str(folder / "cache")}


def test_each_later_task_is_preceded_by_writing(whole: tuple[Path, Writing]) -> None:
    folder, counter = whole
    assert len(counter.units) >= 8
    assert {what for what, _, _ in counter.units} == {
        "replay: writing animals",
        "replay: writing weather",
        "replay: writing",
    }
    assert all(0 <= done <= total == 12 for _, done, total in counter.units)
    assert [unit[1:] for unit in counter.units].count((12, 12)) >= 2
    names = [path.name for path in (folder / "checkpoints").glob("*_epoch0_batch0.pt")]
    assert names == []  # kept for the task in training only, and nothing is written for the last


def test_a_run_whose_power_fails_at_each_unit_ends_like_one_that_was_not_stopped(
    tmp_path: Path,
    replaying: dict[str, Any],
    whole: tuple[Path, Writing],
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "_SECONDS_BETWEEN_SAVES", 0.0)
    units, settings = whole[1].units, uncached(replaying, tmp_path)
    for done in range(len(units) - 1):
        part = Writing(2, cut)
        with pytest.raises(PowerCut):
            train(tmp_path, settings, reporter=part)
        assert part.units == units[done : done + 2]  # of each start one unit is saved
    rest = Writing()
    assert evidence(train(tmp_path, settings, reporter=rest)) == expected
    assert rest.units == units[-1:]


def test_what_was_written_outlives_a_power_cut_before_anything_is_trained(
    tmp_path: Path,
    replaying: dict[str, Any],
    whole: tuple[Path, Writing],
    expected: dict[str, Any],
) -> None:
    class AtTheFirstStep(Reporter):
        task = 0

        def task_started(self, index: int, *_: object) -> None:
            self.task = index

        def step(self, *_: object) -> None:
            if self.task == 1:
                raise PowerCut

    with pytest.raises(PowerCut):
        train(tmp_path, replaying, reporter=AtTheFirstStep())
    snapshot = newest(tmp_path / "run")
    assert (snapshot.cursor["task"], snapshot.cursor["phase"]) == (1, Phase.TRAIN)
    rest = Writing()
    assert evidence(train(tmp_path, replaying, reporter=rest)) == expected
    of_task_1 = [what for what, _, _ in whole[1].units].index("replay: writing") + 1
    assert rest.units == whole[1].units[of_task_1:]


@pytest.mark.parametrize("unit", [1, 3, 5])
def test_asked_to_stop_while_texts_are_written_it_saves_them_and_goes_on(
    tmp_path: Path,
    replaying: dict[str, Any],
    whole: tuple[Path, Writing],
    expected: dict[str, Any],
    unit: int,
) -> None:
    stop = StopRequest()
    request = Writing(unit, lambda: stop.request("SIGTEST", 99))
    settings = uncached(replaying, tmp_path)
    with pytest.raises(RunStoppedError):
        train(tmp_path, settings, reporter=request, stop=stop)
    assert len(request.units) == unit
    snapshot = newest(tmp_path / "run")
    assert snapshot.cursor["phase"] == Phase.PREPARE
    assert (snapshot.cursor["epoch"], snapshot.cursor["batch"]) == (0, 0)
    rest = Writing()
    for path in (tmp_path / "cache").rglob("*.json"):
        path.unlink()  # what was saved must not be asked for again
    assert evidence(train(tmp_path, settings, reporter=rest)) == expected
    assert rest.units == whole[1].units[unit:]


def test_preparation_saves_by_the_clock(
    tmp_path: Path, replaying: dict[str, Any], whole: tuple[Path, Writing]
) -> None:
    """Every half minute, under the name that the first batch takes over."""
    seconds, saved = 0.0, []

    class Listener(Writing):
        def message(self, text: str, /) -> None:
            if text.startswith("Checkpoint saved") and "epoch0_batch0" in text:
                saved.append(text)

    trainer = CLTrainer(
        **{**replaying, "experiment_dir": str(tmp_path), "async_checkpoint": False},
        reporter=Listener(),
    )

    def clock() -> float:
        nonlocal seconds
        seconds += 15.0
        return seconds

    def learn_by_the_clock(run: Run) -> None:
        run.clock = clock
        learn(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "learn", learn_by_the_clock)
        trainer.train_sequence()
    units = len(whole[1].units)
    assert len(saved) == pytest.approx(units / 2 + 2, abs=2)


def test_what_replay_taught_is_logged_beside_the_loss_of_the_task(
    whole: tuple[Path, Writing],
) -> None:
    steps = events(whole[0], "step")
    assert all("replay_loss" not in step for step in steps if step["task"] == 0)
    later = [step for step in steps if step["task"] > 0]
    # 8 examples a batch: 0.3 of them, 2 or 3, come with each
    assert all(step["replay_loss"] > 0 for step in later)


def test_the_state_of_a_task_under_way_holds_prompts_and_examples(
    tmp_path: Path, replaying: dict[str, Any]
) -> None:
    stop = StopRequest()
    with pytest.raises(RunStoppedError):
        train(
            tmp_path,
            replaying,
            reporter=Writing(2, lambda: stop.request("SIGTEST", 99)),
            stop=stop,
        )
    state = newest(tmp_path / "run").state["methods"]["replay"]
    assert state["finished"] == [["animals", ["cat", "dog"]]]
    assert state["writing"]["name"] == "animals"
    assert all("{label}" in template for template in state["writing"]["templates"])
    assert sum(state["writing"]["draft"]["fates"].values()) == 8
    assert state["generator_weights"][0] == replaying["generation_model"]


def test_replay_changes_what_is_learned(
    whole: tuple[Path, Writing], tmp_path: Path, replaying: dict[str, Any]
) -> None:
    without = train(tmp_path, {**replaying, "use_replay": False})
    mine, other = newest(whole[0]), newest(without)
    assert mine.objects["model/adapter-0"] == other.objects["model/adapter-0"]
    assert mine.objects["model/adapter-1"] != other.objects["model/adapter-1"]


class StopsAtBatch(StopRequest):
    """Asks to stop where so many batches of the second task are done."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.run: Run | None = None

    @property
    def requested(self) -> bool:
        if self.run is not None:
            cursor = self.run.components.cursor
            if (cursor.task, cursor.phase, cursor.batch) == (1, Phase.TRAIN, self.batch):
                self.request("SIGTEST", 99)
        return super().requested


@pytest.mark.parametrize(("batch", "replayed"), [(1, 2), (2, 4), (3, 0), (4, 2)])
def test_a_step_of_several_batches_is_taken_up_between_them(
    tmp_path: Path,
    replaying: dict[str, Any],
    accumulating: dict[str, Any],
    batch: int,
    replayed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, stop = {**replaying, **ACCUMULATING}, StopsAtBatch(batch)

    def watched(run: Run) -> None:
        stop.run = run
        learn(run)

    with monkeypatch.context() as patch:
        patch.setattr(finishing, "learn", watched)
        with pytest.raises(RunStoppedError):
            train(tmp_path, settings, stop=stop)
    gradients = newest(tmp_path / "run").state["gradients"]
    assert gradients.get("replayed", 0) == replayed
    assert evidence(train(tmp_path, settings)) == accumulating


def test_weights_that_were_exchanged_under_the_same_name_are_noticed(
    tmp_path: Path, replaying: dict[str, Any]
) -> None:
    folder = tmp_path / "generator"
    shutil.copytree(replaying["generation_model"], folder)
    settings = {**replaying, "generation_model": str(folder)}
    with pytest.raises(PowerCut):
        train(tmp_path, settings, reporter=AtTask(2))
    make_generator(folder, ["cat", "dog", "rain", *tiny.FILLER])
    with pytest.raises(IncompatibleCheckpointError, match="has other weights"):
        train(tmp_path, settings)


@pytest.mark.parametrize("change", [{"temperature": 1.3}, {"precision": "bf16"}])
def test_texts_may_be_written_in_another_way_by_the_same_weights(
    tmp_path: Path, replaying: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(PowerCut):
        train(tmp_path, replaying, reporter=AtTask(2))
    changed = {**replaying, **change, "experiment_dir": str(tmp_path)}
    trainer = CLTrainer(**changed)
    trainer.train_sequence(resume=True, accept_changes=True)
    assert trainer.run.components.finished
