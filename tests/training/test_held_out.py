"""Training texts are held out for validation only where something uses it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.train.command import main
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import copied_tasks, cut, events, refusal, train


@pytest.fixture
def without(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Settings of a run whose tasks have no validation split."""
    tasks = copied_tasks(settings, tmp_path / "tasks")
    for task in tasks:
        (Path(task) / "validation.jsonl").unlink()
    return {**settings, "tasks": tasks}


def sizes(settings: dict[str, Any], folder: Path, **changes: Any) -> list[tuple[int, int]]:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder), **changes})
    return [(len(task.train), len(task.validation)) for task in trainer.run.components.tasks]


@pytest.mark.parametrize(
    ("changes", "held_out"),
    [
        ({}, False),
        ({"early_stopping_patience": 1}, True),
        ({"measure_validation": True}, True),
        ({"hold_out_validation": "always"}, True),
    ],
)
def test_a_tenth_is_held_out_where_something_uses_it(
    without: dict[str, Any], tmp_path: Path, changes: dict[str, Any], held_out: bool
) -> None:
    expected = (36, 4) if held_out else (40, 0)
    assert sizes(without, tmp_path, **changes)[0] == expected


def test_a_validation_split_of_its_own_stays_whatever_uses_it(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    assert sizes(settings, tmp_path)[0] == (40, 20)


def test_texts_that_are_held_out_are_announced_by_task(
    without: dict[str, Any], tmp_path: Path
) -> None:
    experiment, listener = train(without, tmp_path / "a", early_stopping_patience=9)
    assert [text for text in listener.messages if "held out" in text] == [
        f"Note: task {name} has no validation split: {count} of its 40 training texts are held out "
        "for it"
        for name, count in (("animals", 4), ("weather", 4), ("food", 3))
    ]
    found = json.loads((experiment / "results" / "final_results.json").read_text())
    assert [task["held_out"] for task in found["tasks"]] == [4, 4, 3]
    _, listener = train(without, tmp_path / "b")
    assert not [text for text in listener.messages if "held out" in text]


def of_an_older_version(experiment: Path) -> None:
    """Make an experiment what it would be, had there been no such setting yet."""
    config = experiment / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("hold_out_validation")]
    assert len(kept) == len(lines) - 1
    config.write_text("".join(kept))
    store = CheckpointStore(experiment / "checkpoints")
    for entry in store.entries():
        snapshot = decode(store.read(entry))
        old = {k: v for k, v in snapshot.facts.settings.items() if k != "hold_out_validation"}
        store.commit(
            entry.path.name, encode(replace(snapshot, facts=replace(snapshot.facts, settings=old)))
        )


def test_a_run_of_an_older_version_goes_on_with_the_texts_it_learned_from(
    without: dict[str, Any], tmp_path: Path
) -> None:
    always = {**without, "hold_out_validation": "always"}
    whole, _ = train(always, tmp_path / "whole")
    stopped = cut(always, tmp_path / "cut", after=13)
    of_an_older_version(stopped)
    place = ["--experiment-name", "run", "--experiment-dir", str(stopped.parent)]
    assert main([*place, "--resume"]) == 0
    assert evidence(stopped) == evidence(whole)
    assert not events(stopped, "changed")


def test_settings_that_hold_out_less_are_refused_with_the_way_out(
    without: dict[str, Any], tmp_path: Path
) -> None:
    stopped = cut({**without, "hold_out_validation": "always"}, tmp_path, after=13)
    of_an_older_version(stopped)
    said = refusal(without, tmp_path)
    assert "tasks[1].examples: 36 in the checkpoint, now 40" in said
    assert "hold_out_validation: always restores it" in said
