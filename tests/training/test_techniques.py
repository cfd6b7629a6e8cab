"""What every technique promises in a real run: exact resume, and nothing where it is off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plora_cl.config.fields import SettingFields
from plora_cl.evaluation.costs import Costs
from plora_cl.state import Phase
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import evidence

OFF = {"use_ewc": False, "use_orthogonal": False, "composition": "cumulative"}
EWC = OFF | {"use_ewc": True}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "ewc-online-empirical": EWC | {"ewc_gamma": 0.9},
    "ewc-offline-exact": EWC | {"ewc_mode": "offline", "ewc_fisher": "exact"},
    "ewc-online-sampled": EWC | {"ewc_fisher": "sampled"},
    "ewc-offline-batched": EWC
    | {"ewc_mode": "offline", "ewc_fisher": "batched", "ewc_fisher_batch_size": 4},
    "olora": OFF | {"use_orthogonal": True, "lambda_ortho_norm": 0.01},
    "olora-squared": OFF | {"use_orthogonal": True, "ortho_form": "squared"},
    "lateral": OFF | {"use_lateral": True, "lateral_rank": 3},
    "replay": OFF | {"use_replay": True},
    "replay-tuned": OFF | {"use_replay": True, "replay_tuning": True},
    "everything": {"use_lateral": True, "use_replay": True, "composition": "isolated"},
}
MEASURED_ELSEWHERE = {"use_router"}  # leaves the oracle scores alone, see test_routing.py

Instant = tuple[str, str]
"""A phase of the last task, and where in it: ``start``, ``inside`` or ``end``."""


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it."""


class Watch(Reporter):
    """Notes the instants of the last task that a run comes by, and cuts the power at one."""

    def __init__(self, last: str, cut: Instant | None = None) -> None:
        self._last, self._cut = last, cut
        self._phase: str | None = None
        self.instants: list[Instant] = []

    def step(self, *_: object) -> None:
        self._come_by("inside")

    def activity(self, unit: Unit, /) -> None:
        self._come_by("inside")

    @contextmanager
    def phase(self, task: str, phase: str) -> Iterator[None]:
        self._phase = phase if task == self._last else None
        self._come_by("start")
        yield
        self._come_by("end")
        self._phase = None

    def _come_by(self, where: str) -> None:
        if self._phase is None:
            return
        self.instants.append((self._phase, where))
        if self.instants[-1] == self._cut:
            raise PowerCut


@pytest.fixture
def two_tasks(settings: dict[str, Any], generator: Path) -> dict[str, Any]:
    """Settings of a run of 2 tasks in which every phase occurs."""
    return settings | {
        "tasks": settings["tasks"][:2],
        "epochs": 1,
        "batch_size": 10,
        "checkpoint_every": 3,
        "early_stopping_patience": 1,
        "replay_ratio": 0.3,
        "generation_model": str(generator),
        "generation_batch_size": 4,
        "max_gen_length": 6,
    }


def train(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], folder: Path, watch: Watch
) -> Path:
    measure, phases = Costs.measure, {phase.value for phase in Phase}

    @contextmanager
    def watched(costs: Costs, task: str, what: str) -> Iterator[None]:
        with measure(costs, task, what):
            if what not in phases:
                yield
                return
            with watch.phase(task, what):
                yield

    trainer = CLTrainer(reporter=watch, **{**settings, "experiment_dir": str(folder)})
    with monkeypatch.context() as patch:
        patch.setattr(Costs, "measure", watched)
        trainer.train_sequence(resume="auto")
    return trainer.folder


@pytest.mark.fault
@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_a_run_goes_on_exactly_from_inside_every_phase(
    technique: dict[str, Any],
    tmp_path: Path,
    two_tasks: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, last = two_tasks | technique, Path(two_tasks["tasks"][1]).name
    watch = Watch(last)
    whole = evidence(train(monkeypatch, settings, tmp_path / "whole", watch))
    phases = dict.fromkeys(phase for phase, _ in watch.instants)
    assert set(phases) == {phase.value for phase in Phase} - {"done"}
    for phase in phases:
        inside = (phase, "inside") in watch.instants
        cut = Watch(last, (phase, "inside" if inside else "end"))
        with pytest.raises(PowerCut):
            train(monkeypatch, settings, tmp_path, cut)
    assert evidence(train(monkeypatch, settings, tmp_path, Watch(last))) == whole


def switches() -> list[str]:
    names = [name for name in SettingFields.model_fields if name.startswith("use_")]
    return [name for name in names if name not in MEASURED_ELSEWHERE]


def test_no_technique_is_left_out() -> None:
    tried = {
        name
        for technique in TECHNIQUES.values()
        for name, on in technique.items()
        if on is True and name.startswith("use_")
    }
    assert tried == set(switches())


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_on_a_single_task_a_run_with_it_is_the_run_without_it(
    technique: dict[str, Any], tmp_path: Path, two_tasks: dict[str, Any]
) -> None:
    one_task = two_tasks | {"tasks": two_tasks["tasks"][:1]}
    found = []
    for name, changes in (("on", technique), ("off", OFF)):
        folder = tmp_path / name
        trainer = CLTrainer(**{**one_task, **changes, "experiment_dir": str(folder)})
        results = trainer.train_sequence()
        steps = [r for r in log_of(trainer.folder) if r["event"] == "step"]
        weights = {
            name: ref
            for name, ref in evidence(trainer.folder).items()
            if "/model/" in name or name.endswith("/optimizer")
        }
        found.append((results["accuracy_matrix"], results["f1_matrix"], steps, weights))
    assert found[0] == found[1]
    assert len(found[0][2]) == 4
    assert len(found[0][3]) >= 4


def test_what_is_off_leaves_no_trace(tmp_path: Path, two_tasks: dict[str, Any]) -> None:
    trainer = CLTrainer(**{**two_tasks, **OFF, "experiment_dir": str(tmp_path)})
    assert trainer.train_sequence()["methods"] == {}
    log = log_of(trainer.folder)
    assert all(record["penalties"] == {} for record in log if record["event"] == "step")
    assert not [name for name in evidence(trainer.folder) if "/memory/" in name]


def log_of(experiment: Path) -> list[dict[str, Any]]:
    text = (experiment / "results" / "run_log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
