from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.config.precedence import dump
from plora_cl.config.schema import identity
from plora_cl.data.sources.entry import task_name
from plora_cl.study.file import read_study
from plora_cl.study.plan import PlannedRun, planned_runs

Planned = Callable[..., list[PlannedRun]]

STUDY: dict[str, Any] = {
    "name": "four",
    "base": {"experiment_dir": "experiments", "epochs": 2},
    "tasks": {"a": {"path": "data/animals"}, "w": {"path": "data/weather"}},
    "orders": {"aw": ["a", "w"], "wa": ["w", "a"]},
    "methods": ["plain", {"ewc": {"like": "plain", "use_ewc": True}}],
    "seeds": [1, 2],
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "p.yaml"


@pytest.fixture
def planned(file: Path) -> Planned:
    """Return the runs of `STUDY` with some of its keys replaced; None removes one."""

    def plan(**changes: Any) -> list[PlannedRun]:
        write(file, **changes)
        return planned_runs(read_study(file), "p.yaml")

    return plan


def write(file: Path, **changes: Any) -> None:
    values = {key: value for key, value in {**STUDY, **changes}.items() if value is not None}
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def finish(run: PlannedRun, accuracy: float = 0.8, **results: Any) -> None:
    """Leave behind what a run does that has ended."""
    names = [task_name(entry) for entry in run.settings.tasks]
    tasks = len(names)
    data = [{"name": n, "train": f"{n}{run.seed}", "test": n, "validation": n} for n in names]
    content = {
        "average_accuracy": accuracy,
        "learning_accuracy": accuracy,
        "backward_transfer": 0.0,
        "forgetting": 0.0,
        "f1": {"average_accuracy": accuracy},
        "routed": {"average_accuracy": None},
        "gap": {"average_accuracy": None},
        "tasks": [{"name": name, "validation": 100} for name in names],
        "accuracy_matrix": [[accuracy] * tasks] * tasks,
        "zero_by_construction": {},
        "wall_clock_seconds": 1.0,
        "identity": {**identity(run.settings), "data": data},
        **results,
    }
    begin(run)
    (run.folder / "results").mkdir(exist_ok=True)
    (run.folder / "results" / "final_results.json").write_text(json.dumps(content))


def begin(run: PlannedRun, **changed: Any) -> None:
    """Leave behind what a run does that has begun."""
    run.folder.mkdir(parents=True, exist_ok=True)
    settings = run.settings.model_copy(update=changed)
    (run.folder / "config.yaml").write_text(dump(settings), encoding="utf-8")
