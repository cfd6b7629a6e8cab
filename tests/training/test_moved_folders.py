"""A folder that is removed, renamed or begun anew while a run writes to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.cli.exit import REFUSED, exit_code
from plora_cl.errors import ExperimentLockedError, ExperimentMovedError
from plora_cl.training.reporting import Reporter, TaskScore
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import train


class AtStep(Reporter):
    """Does something in the middle of a run."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.messages: list[str] = []
        self._left, self._action = step, action

    def message(self, text: str, /) -> None:
        self.messages.append(text)

    def step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def remove(run: Path) -> None:
    shutil.rmtree(run)


def rename(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def unlock(run: Path) -> None:
    (run / ".lock").unlink()


@pytest.mark.parametrize("change", [remove, rename])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("every", [1, 1000, 0])
def test_a_run_whose_folder_is_gone_ends_and_makes_no_new_one(
    settings: dict[str, Any],
    tmp_path: Path,
    change: Callable[[Path], None],
    background: bool,
    every: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left: dict[str, bytes] = {}

    def act() -> None:
        trainer.run.checkpointer.flush()
        change(tmp_path / "run")
        left.update(files(tmp_path))

    changes = {"checkpoint_every": every, "async_checkpoint": background}
    reporter = AtStep(12, act)
    trainer = CLTrainer(
        reporter=reporter, **{**settings, **changes, "experiment_dir": str(tmp_path)}
    )
    assert exit_code(lambda: bool(trainer.train_sequence())) == REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {tmp_path / 'run'} was moved, removed or replaced")
    assert "--resume auto" in line
    assert files(tmp_path) == left
    assert not (tmp_path / "run").exists()
    assert not any("training goes on" in text for text in reporter.messages)


def test_a_renamed_run_goes_on_under_its_new_name(
    settings: dict[str, Any], tmp_path: Path, whole: Path
) -> None:
    reporter = AtStep(14, lambda: rename(tmp_path / "run"))
    trainer = CLTrainer(reporter=reporter, **{**settings, "experiment_dir": str(tmp_path)})
    with pytest.raises(ExperimentMovedError):
        trainer.train_sequence()
    folder, _ = train(settings, tmp_path, experiment_name="elsewhere", resume=True)
    assert evidence(folder) == evidence(whole)


@pytest.mark.parametrize("change", [remove, rename, unlock])
def test_a_run_leaves_alone_what_another_one_has_begun_in_its_place(
    settings: dict[str, Any], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    left: dict[str, bytes] = {}

    def replace() -> None:
        first.run.checkpointer.flush()
        change(tmp_path / "run")
        if change is unlock:
            ExperimentLock.acquire(tmp_path / "run").release()
        else:
            train(settings, tmp_path, seed=2, tasks=settings["tasks"][:1], resume=False)
        left.update(files(tmp_path / "run"))

    first = CLTrainer(
        reporter=AtStep(9, replace),
        **{**settings, "experiment_dir": str(tmp_path), "checkpoint_every": 1},
    )
    with pytest.raises(ExperimentMovedError, match="nothing more is written there"):
        first.train_sequence()
    assert left
    assert files(tmp_path / "run") == left


def test_results_are_not_written_beside_those_of_another_run(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def replace() -> None:
        remove(tmp_path / "run")
        (tmp_path / "run").mkdir()

    class AtTheEnd(Reporter):
        def table(self, *_: object) -> None:
            raise AssertionError("results were shown")

        def task_finished(self, scores: Mapping[str, TaskScore], /) -> None:
            if len(scores) == len(settings["tasks"]):
                replace()

    changes = {"checkpoint_every": 0, "experiment_dir": str(tmp_path)}
    with pytest.raises(ExperimentMovedError):
        CLTrainer(reporter=AtTheEnd(), **{**settings, **changes}).train_sequence()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_trainer_whose_folder_is_back_goes_on(
    settings: dict[str, Any], tmp_path: Path, whole: Path
) -> None:
    reporter = AtStep(14, lambda: rename(tmp_path / "run"))
    trainer = CLTrainer(reporter=reporter, **{**settings, "experiment_dir": str(tmp_path)})
    with pytest.raises(ExperimentLockedError):
        trainer.train_sequence()
    (tmp_path / "elsewhere").rename(tmp_path / "run")
    trainer.train_sequence(resume=True)
    assert evidence(trainer.folder) == evidence(whole)
