"""``plora-cl study`` with real children: killed, started again, and left alone when done.

The supervisor that is killed and its children are new interpreters; later children are forked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import tiny
from plora_cl.checkpoint.disk.lock import holder_of
from plora_cl.cli.study.command import main
from plora_cl.study import child
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from warm import Interpreter, Process

PATIENCE_SECONDS = 120.0

SUPERVISED = """
import os, sys, torch
from plora_cl.cli.train.supervised import main
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # read before only by a new interpreter
sys.exit(main())
"""

pytestmark = pytest.mark.timeout(900)  # the first test waits for four processes to load torch


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Place:
    file: Path
    runs: Path
    settings: dict[str, Any]

    def results(self, run: str) -> dict[str, Any]:
        content = (self.runs / run / "results" / "final_results.json").read_bytes()
        found: dict[str, Any] = json.loads(content)
        return found

    def log(self, run: str) -> str:
        return (self.runs / run / "log.txt").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("study")
    settings = {
        "model_name": str(tiny.make_encoder(folder / "encoder")),
        "cache_dir": str(folder / "cache"),
        "experiment_dir": str(folder / "experiments"),
        "device": "cpu",
        "epochs": 10,
        "batch_size": 4,
        "max_length": 16,
        "lora_r": 2,
        "use_router": False,
        "checkpoint_every": 5,
    }
    animals, weather, _ = map(str, tiny.make_tasks(folder / "data"))
    (folder / "data" / "weather" / "validation.jsonl").unlink()  # nothing needs it
    values = {
        "name": "tiny",
        "base": settings,
        "tasks": {"a": {"path": animals}, "w": {"path": weather}},
        "orders": {"aw": ["a", "w"]},
        "methods": [
            "plain",
            "tfidf",
            {"broken": {"like": "plain", "lora_target_modules": ["nowhere"]}},
        ],
        "seeds": [1],
        "jobs": 3,
        "baseline": "tfidf",
    }
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return Place(file, folder / "experiments" / "tiny", settings)


@pytest.fixture(scope="module")
def killed(place: Place) -> Place:
    """A study whose supervisor was killed while its first run was learning."""
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "plora_cl.cli.main", "study", str(place.file)],
        stdout=subprocess.DEVNULL,
    )
    checkpoints = place.runs / "plain__aw__seed1" / "checkpoints"
    wait_for(lambda: any(checkpoints.glob("*.pt")))
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    return place


@pytest.fixture(scope="module")
def again(killed: Place, warm: Interpreter) -> Place:
    """The same study, started again at once and ended by itself."""

    def forked(command: list[str], *, env: dict[str, str], **options: Any) -> Process:
        assert command[:3] == [sys.executable, "-m", "plora_cl.cli.train.supervised"]
        assert options.keys() == {"stdin", "stdout", "stderr", "start_new_session"}
        return warm.start(
            SUPERVISED,
            *command[3:],
            stdin=options["stdin"],
            stdout=options["stdout"],
            env=env,
            new_session=options["start_new_session"],
        )

    names = {"Popen": forked, "PIPE": subprocess.PIPE, "STDOUT": subprocess.STDOUT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "subprocess", SimpleNamespace(**names))
        assert main([str(killed.file)]) == 1
    return killed


@pytest.mark.fault
def test_a_run_resumes_exactly_after_its_supervisor_was_killed(
    again: Place, tmp_path: Path
) -> None:
    name = "plain__aw__seed1"
    assert "SIGTERM: stopping at the next safe instant" in again.log(name)
    assert "Resuming from task" in again.log(name)
    recorded = yaml.safe_load((again.runs / name / "config.yaml").read_text())
    trainer = CLTrainer(**{**recorded, "experiment_dir": str(tmp_path)})
    trainer.train_sequence()
    assert evidence(again.runs / name) == evidence(trainer.folder)


def test_the_floor_learned_from_the_examples_of_the_run_of_its_seed(again: Place) -> None:
    run, floor = again.results("plain__aw__seed1"), again.results("tfidf__aw__seed1")
    assert floor["identity"]["data"] == run["identity"]["data"]
    assert floor["average_accuracy"] > 0.8
    assert floor["zero_by_construction"].keys() == {"backward_transfer", "forgetting"}


def test_a_run_that_fails_is_reported_and_stops_no_other(
    again: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(again.file), "--status"]) == 0
    out = capsys.readouterr().out
    assert "broken__aw__seed1  failed" in out
    assert "nowhere" in out
    assert "3 runs: 2 done, 1 failed" in out


def test_everything_that_is_done_is_compared(again: Place) -> None:
    table = (again.runs / "summary.md").read_text()
    assert "| tfidf | - | 1 |" in table
    assert "| plain | - | 1 |" in table
    assert "broken" not in table
    names = {path.name for path in again.runs.iterdir() if path.is_file()}
    assert names >= {"runs.csv", "summary.csv", "summary.json", "summary.md"}


def test_what_is_done_is_not_touched_by_another_start(
    again: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    file = again.file.with_name("two.yaml")
    values = yaml.safe_load(again.file.read_text())
    file.write_text(yaml.safe_dump({**values, "methods": ["plain", "tfidf"]}), encoding="utf-8")
    results = again.runs / "plain__aw__seed1" / "results" / "final_results.json"
    before = results.stat().st_mtime_ns
    assert main([str(file)]) == 0
    assert results.stat().st_mtime_ns == before
    assert "started" not in capsys.readouterr().out


def test_other_settings_are_reported_and_change_nothing(
    again: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    file = again.file.with_name("other.yaml")
    values = yaml.safe_load(again.file.read_text())
    values |= {"methods": ["plain"], "base": {**again.settings, "epochs": 1}, "baseline": None}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert main([str(file)]) == 1
    out = capsys.readouterr().out
    assert "epochs 10 -> 1" in out
    assert "1 run: 1 changed" in out


def test_no_process_is_left(again: Place) -> None:
    assert not any(holder_of(folder) for folder in again.runs.iterdir() if folder.is_dir())
