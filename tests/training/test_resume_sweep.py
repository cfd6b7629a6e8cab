"""Stop after every single step, and inside every other phase, in process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.snapshot import committer
from plora_cl.checkpoint.store.retention import rotate
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.training.reporting import Reporter, StepReport
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import evidence

STEPS = 3 * 2 * 5


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it."""


class Fuse(Reporter):
    """Counts steps and activities and cuts the power at the chosen one."""

    def __init__(self, *, step: int = 0, activity: int = 0) -> None:
        self._step, self._activity = step, activity
        self.activities = 0

    def step(self, *_: object) -> None:
        self._step -= 1
        if self._step == 0:
            raise PowerCut

    def activity(self, unit: Unit, /) -> None:
        self._activity -= 1
        self.activities += 1
        if self._activity == 0:
            raise PowerCut


class StopsAt(Reporter):
    """Cuts the power at a step of the whole run, counted from 1."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, report: StepReport, /) -> None:
        epochs = report.task * report.epochs + report.epoch
        if epochs * report.batches + report.batch + 1 == self._step:
            raise PowerCut


def train(folder: Path, settings: dict[str, Any], reporter: Reporter | None = None) -> Path:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder)}, reporter=reporter)
    trainer.train_sequence(resume="auto")
    return trainer.folder


@dataclass(frozen=True)
class Reference:
    evidence: dict[str, Any]
    activities: int


@pytest.fixture(scope="module")
def reference(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Reference:
    train(tmp_path_factory.mktemp("tokenised"), settings)
    counter = Fuse()
    folder = train(tmp_path_factory.mktemp("reference"), settings, counter)
    return Reference(evidence(folder), counter.activities)


def survives(
    folder: Path, settings: dict[str, Any], reference: Reference, fuse: Callable[[], Fuse]
) -> None:
    with pytest.raises(PowerCut):
        train(folder, settings, fuse())
    assert evidence(train(folder, settings)) == reference.evidence


@pytest.mark.fault
def test_a_run_stopped_after_each_step_ends_like_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any], reference: Reference
) -> None:
    for step in range(1, STEPS + 1):
        with pytest.raises(PowerCut):
            train(tmp_path, settings, StopsAt(step))
    assert evidence(train(tmp_path, settings)) == reference.evidence


@pytest.mark.fault
@pytest.mark.parametrize("step", [1, 8, 13, 20, 25, STEPS])
def test_a_run_stopped_once_ends_like_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any], reference: Reference, step: int
) -> None:
    survives(tmp_path, settings, reference, lambda: Fuse(step=step))


@pytest.mark.fault
@pytest.mark.parametrize("share", [k / 12 for k in range(12)])
def test_a_run_stopped_inside_any_evaluation_or_fisher_estimate_ends_like_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any], reference: Reference, share: float
) -> None:
    activity = 1 + int(share * reference.activities)
    survives(tmp_path, settings, reference, lambda: Fuse(activity=activity))


@pytest.mark.fault
@pytest.mark.parametrize("task", range(3))
def test_a_run_stopped_before_it_removed_old_checkpoints_ends_like_one_that_was_not(
    tmp_path: Path,
    settings: dict[str, Any],
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
    task: int,
) -> None:
    def cut(store: CheckpointStore, current: CheckpointEntry, *rest: Any) -> object:
        if current.position.task == task and store.manifest(current).cursor["phase"] == "done":
            raise PowerCut
        return rotate(store, current, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(committer, "rotate", cut)
        with pytest.raises(PowerCut):
            train(tmp_path, settings)
    assert evidence(train(tmp_path, settings)) == reference.evidence
