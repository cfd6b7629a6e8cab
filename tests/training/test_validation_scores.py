"""Validation accuracies at the end of a run, and what they may be used for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.evidence import evidence
from training.going_on import copied_tasks, events, rewrite, train

OFF = dict.fromkeys(("use_ewc", "use_orthogonal", "use_lateral"), False)
ON = {**dict.fromkeys(OFF, True), "ewc_fisher_examples": 6}


def results(experiment: Path) -> dict[str, Any]:
    content = (experiment / "results" / "final_results.json").read_bytes()
    found: dict[str, Any] = json.loads(content)
    return found


def test_they_are_of_the_validation_splits_and_change_nothing_else(
    settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    experiment, _ = train(settings, tmp_path, measure_validation=True)
    measured = results(experiment)["validation"]
    assert len(measured["accuracy"]) == 3
    assert measured["average_accuracy"] == pytest.approx(sum(measured["accuracy"]) / 3)
    assert evidence(experiment) == evidence(whole)
    assert "validation" not in results(whole)


def test_they_do_not_see_the_test_split(settings: dict[str, Any], tmp_path: Path) -> None:
    tasks = copied_tasks(settings, tmp_path / "tasks")[:1]
    one = {**settings, "tasks": tasks, "measure_validation": True, "use_router": False}
    before, _ = train(one, tmp_path / "before")

    def only_first_class(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**line, "label": lines[0]["label"]} for line in lines]

    rewrite(Path(tasks[0]) / "test.jsonl", only_first_class)
    after, _ = train(one, tmp_path / "after")
    assert results(before)["validation"] == results(after)["validation"]
    assert results(before)["accuracy_matrix"] != results(after)["accuracy_matrix"]


def test_a_finished_run_measures_them_when_asked_later(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    one = {**settings, "tasks": settings["tasks"][:1]}
    whole, _ = train(one, tmp_path / "whole", measure_validation=True)
    later, _ = train(one, tmp_path / "later")
    train(one, tmp_path / "later", measure_validation=True)
    assert results(later)["validation"] == results(whole)["validation"]


def test_within_the_first_task_no_technique_changes_anything(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Tuning makes one trial of the learning rate for all methods that differ in these alone."""
    one = {**settings, "tasks": settings["tasks"][:1]}
    on, _ = train({**one, **ON}, tmp_path / "on")
    off, _ = train({**one, **OFF}, tmp_path / "off")
    losses = [[event["loss"] for event in events(run, "step")] for run in (on, off)]
    assert losses[0] == losses[1]
    assert results(on)["accuracy_matrix"] == results(off)["accuracy_matrix"]
