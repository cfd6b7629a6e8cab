"""``plora-cl train --dry-run`` tells what a run would do, and starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tiny
from plora_cl.cli.main import main
from plora_cl.training.trainer import CLTrainer
from training.going_on import events

SETTINGS: dict[str, Any] = {
    "model_name": "encoder",
    "tasks": ["tasks/animals", "tasks/weather", "tasks/food"],
    "cache_dir": "cache",
    "experiment_name": "run",
    "device": "cpu",
    "epochs": 2,
    "batch_size": 8,
    "max_length": 16,
    "lora_r": 2,
    "lora_alpha": 4,
    "checkpoint_every": 4,
    "use_ewc": False,
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.make_encoder(Path("encoder"))
    tiny.make_tasks(Path("tasks"))
    return tmp_path


def arguments(**changes: Any) -> list[str]:
    values = {**SETTINGS, **changes}
    assigned = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    return ["train", *(part for text in assigned for part in ("--set", text)), "--dry-run"]


def planned(capsys: pytest.CaptureFixture[str], **changes: Any) -> dict[str, Any]:
    assert main([*arguments(**changes), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


CHANGES: list[dict[str, Any]] = [
    {},
    {"gradient_accumulation_steps": 3},
    {"joint": True},
    {"max_train_examples": 13, "max_eval_examples": 6},
    {"max_train_examples_per_class": 4, "max_validation_examples_per_class": 3},
    {"batch_size": 7},
    {"epochs": 1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_run_takes_the_steps_and_rows_that_were_told(
    changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(capsys, **changes)
    trainer = CLTrainer(**{**SETTINGS, **changes})
    results = trainer.train_sequence()
    steps = events(trainer.folder, "step")
    assert sum(plan["steps"]) == len(steps)
    for task, told in zip(results["tasks"], plan["tasks"], strict=True):
        assert told["name"] == task["name"]
        assert told["classes"] == len(task["classes"])
        assert [told[s] for s in ("train", "validation", "test", "held_out")] == [
            task[s] for s in ("train", "validation", "test", "held_out")
        ]


def test_texts_that_are_held_out_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for task in Path("tasks").iterdir():
        (task / "validation.jsonl").unlink()
    changes = {"hold_out_validation": "always"}
    plan = planned(capsys, **changes)
    results = CLTrainer(**{**SETTINGS, **changes}).train_sequence()
    for task, told in zip(results["tasks"], plan["tasks"], strict=True):
        assert told["held_out"] == task["held_out"] > 0
        assert told["train"] == task["train"]


def test_the_disk_it_tells_is_about_what_a_run_takes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys)
    trainer = CLTrainer(**SETTINGS)
    trainer.train_sequence()
    files = [path for path in (trainer.folder / "checkpoints").rglob("*") if path.is_file()]
    taken = sum(path.stat().st_size for path in files)
    assert taken / 1.5 < plan["disk"]["total"] < taken * 1.5
    assert plan["free_bytes"] > 0


def test_it_takes_no_torch_and_little_time_and_writes_nothing() -> None:
    program = (
        "import sys\n"
        "from plora_cl.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])\n"
        "sys.exit(code)\n"
    )
    before = sorted(Path().rglob("*"))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - start < 10  # a second on a machine that does nothing else
    assert sorted(Path().rglob("*")) == before


def test_what_was_not_checked_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tasks=["ag_news", "tasks/food"], use_ewc=True)) == 0
    out = capsys.readouterr().out
    assert "Not checked: task ag_news: it has to be fetched" in out
    assert "Not checked: what EWC keeps or generates" in out
    assert "weights, memory" in out
    assert main(arguments(model_name="distilbert-base-uncased")) == 0
    assert "Not checked: size: distilbert-base-uncased is not on this disk" in (
        capsys.readouterr().out
    )


def test_it_refuses_what_training_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("tasks/food/test.jsonl").open("a") as file:
        file.write('{"text": "salt", "label": "spice"}\n')
    assert main(arguments()) == 2
    error = capsys.readouterr().err
    assert "test.jsonl:21: label 'spice' does not occur in the training split" in error


def test_a_folder_that_holds_a_run_is_refused_or_resumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    CLTrainer(**SETTINGS).train_sequence()
    capsys.readouterr()
    assert main(arguments()) == 2
    assert "already holds" in capsys.readouterr().err
    assert main([*arguments(), "--resume"]) == 0
    assert "resumes from its newest checkpoint" in capsys.readouterr().out


def test_json_needs_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--json"])
    assert "--json needs --dry-run" in capsys.readouterr().err
