"""Runs that are stopped after every single unit: they come to their end, bit by bit the same."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.cli.train import command
from plora_cl.config import learners
from plora_cl.errors import RunStoppedError
from plora_cl.training.reporting import Reporter
from plora_cl.training.run import run as run_module
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import evidence
from training.going_on import newest

OFF = {"use_ewc": False, "use_orthogonal": False, "use_router": False}
CUMULATIVE = {"composition": "cumulative", "lateral_rank": 3}
REPLAY = {"use_replay": True, "replay_ratio": 0.2, "generation_batch_size": 4, "max_gen_length": 6}
TUNING = {"replay_tuning": True, "replay_tuning_examples": 6, "replay_tuning_epochs": 2}
RUNS: dict[str, dict[str, Any]] = {
    "all defaults": {"use_ewc": True, "use_router": True},
    "EWC, sampled": OFF | {"use_ewc": True, "ewc_fisher": "sampled"},
    "EWC, batched": OFF | {"use_ewc": True, "ewc_fisher": "batched", "ewc_fisher_batch_size": 2},
    "O-LoRA and lateral": OFF | {"use_orthogonal": True, "use_lateral": True, **CUMULATIVE},
    "replay, tuned": OFF | REPLAY | TUNING,
    "early stopping": OFF | {"epochs": 2, "early_stopping_patience": 1},
    "joint": {**learners.LEARNERS["joint"], "early_stopping_patience": 2, "use_router": True},
    "validation at the end": OFF | {"measure_validation": True},
    "steps of several batches": OFF | {"gradient_accumulation_steps": 2},
}
"""Every technique, and every other long work that is done between training steps."""


@pytest.fixture
def small(
    settings: dict[str, Any],
    generator: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Settings of a run of 2 tasks in which each pass over a split takes several batches."""
    return settings | {
        "tasks": settings["tasks"][:2],
        "epochs": 1,
        "batch_size": 20,
        "eval_batch_size": 10,
        "ewc_fisher_examples": 3,
        "router_examples": 12,
        "checkpoint_every": 1000,
        "keep_last_n_checkpoints": 1,  # a stop adds a checkpoint, which would stay
        "generation_model": str(generator),
    }


class Counter(Reporter):
    """Counts training steps and the units of everything else."""

    def __init__(self) -> None:
        self.units: list[tuple[str, int, int]] = []
        self.steps = 0

    def step(self, *_: object) -> None:
        self.steps += 1

    def activity(self, unit: Unit, /) -> None:
        if not unit.what.startswith("tokenising"):
            self.units.append(unit)


class OneUnit(Counter):
    """Asks to stop as soon as anything is done."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self._stop = stop

    def step(self, *_: object) -> None:
        super().step()
        self._stop.request("SIGTEST", 99)

    def activity(self, unit: Unit, /) -> None:
        super().activity(unit)
        if self.units:
            self._stop.request("SIGTEST", 99)


def trained(folder: Path, settings: dict[str, Any], **parts: Any) -> Path:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder)}, **parts)
    trainer.train_sequence(resume="auto")
    return trainer.folder


def results_of(experiment: Path) -> dict[str, Any]:
    found = json.loads((experiment / "results" / "final_results.json").read_text())
    return {key: value for key, value in found.items() if key != "wall_clock_seconds"}


def in_slices(folder: Path, settings: dict[str, Any], most: int) -> list[OneUnit]:
    """Start again and again, each time for one unit; return what each start did."""
    slices: list[OneUnit] = []
    while len(slices) <= most:
        stop = StopRequest()
        slices.append(OneUnit(stop))
        try:
            trained(folder, settings, reporter=slices[-1], stop=stop)
        except RunStoppedError:
            continue
        return slices
    last = newest(folder / "run").cursor if list(folder.rglob("*.pt")) else None
    pytest.fail(f"{most} starts, and it never gets beyond {last}: {slices[-1].units}")


@pytest.mark.fault
@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_a_run_that_is_stopped_after_every_unit_ends_as_one_that_was_not(
    changes: dict[str, Any], tmp_path: Path, small: dict[str, Any]
) -> None:
    settings, counter = small | changes, Counter()
    whole = trained(tmp_path / "whole", settings, reporter=counter)
    again = 2 * len(settings["tasks"])  # batches to predict for the scores by class in the end
    slices = in_slices(tmp_path / "slices", settings, counter.steps + len(counter.units) + again)
    experiment = tmp_path / "slices" / "run"
    assert evidence(experiment) == evidence(whole)
    assert results_of(experiment) == results_of(whole)
    done = [unit for each in slices for unit in each.units]
    assert [unit for unit in done if not unit[0].startswith("classes of")] == counter.units
    assert sum(each.steps for each in slices) == counter.steps
    assert "under_way" not in newest(experiment).state


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it."""


class Fuse(Counter):
    """Cuts the power when a unit is done, before it is saved."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self._unit = unit

    def activity(self, unit: Unit, /) -> None:
        super().activity(unit)
        if len(self.units) == self._unit:
            raise PowerCut


@pytest.mark.fault
def test_a_power_cut_costs_the_units_since_the_last_save(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each unit is saved, so it costs the one that was not."""
    settings, counter = small | RUNS["all defaults"] | {"measure_validation": True}, Counter()
    whole = trained(tmp_path / "whole", settings, reporter=counter)
    monkeypatch.setattr(run_module, "_SECONDS_BETWEEN_SAVES", 0.0)
    for unit in range(2, len(counter.units) + 1, 5):
        folder, rest = tmp_path / str(unit), Counter()
        with pytest.raises(PowerCut):
            trained(folder, settings, reporter=Fuse(unit))
        assert evidence(trained(folder, settings, reporter=rest)) == evidence(whole)
        before = [unit for unit in rest.units if not unit[0].startswith("classes of")]
        assert before == counter.units[unit - 1 :]


@pytest.mark.fault
def test_a_time_limit_that_is_always_up_gets_to_the_end(
    tmp_path: Path,
    small: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command, on a clock that goes on by a second whenever it is looked at."""
    settings, counter = small | {"tasks": small["tasks"][:1]}, Counter()
    whole = trained(tmp_path / "whole", settings, reporter=counter)
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    seconds = count()
    monkeypatch.setattr(command, "StopRequest", lambda: StopRequest(lambda: float(next(seconds))))
    argv = ["--config", str(file), "--experiment-dir", str(tmp_path), "--resume", "auto"]
    argv += ["--max-time", "1s", "--quiet"]
    most = counter.steps + len(counter.units)
    codes = [command.main(argv)]
    while codes[-1] == 75 and len(codes) <= most:
        codes.append(command.main(argv))
    assert codes == [75] * most + [0]
    assert "Run stopped by --max-time" in capsys.readouterr().err
    assert evidence(tmp_path / "run") == evidence(whole)


def test_every_kind_of_long_work_is_among_them(tmp_path: Path, small: dict[str, Any]) -> None:
    kinds = set()
    for name in ("all defaults", "replay, tuned", "joint", "validation at the end"):
        counter = Counter()
        trained(tmp_path / name, small | RUNS[name], reporter=counter)
        kinds |= {" ".join(what.split()[:2]) for what, _, _ in counter.units}
    assert kinds == {
        "untrained on",
        "Fisher information",
        "router: learning",
        "router: texts",
        "evaluation on",
        "validation on",
        "replay: writing",
        "replay: tuning",
    }
