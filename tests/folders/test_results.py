"""``plora-cl results`` shows what a run scored, from its folder alone."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from folders.conftest import Answered, unfinished


def published(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results" / "final_results.json").read_text())
    return found


def test_it_needs_neither_torch_nor_checkpoints_nor_the_place_of_the_run(
    copy: Path, tmp_path: Path, loaded_by: Callable[..., tuple[int, str, set[str]]]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(copy / "results", elsewhere / "results")
    code, out, heavy = loaded_by("results", elsewhere)
    assert (code, heavy) == (0, set())
    for task in published(copy)["oracle"]["tasks"]:
        assert f"{task['accuracy']:.3f}" in out
        assert task["name"] in out


def test_the_document_has_the_published_scores_by_task_and_class(
    copy: Path, call: Answered
) -> None:
    (shown,) = call.json("results", copy)["experiments"]
    results = published(copy)
    assert shown["finished"] is True
    assert shown["metrics"]["average_accuracy"] == results["average_accuracy"]
    assert shown["metrics"]["average_f1"] == results["f1"]["average_accuracy"]
    assert shown["metrics"]["routed_average_accuracy"] == results["routed"]["average_accuracy"]
    for place, task in enumerate(shown["tasks"]):
        assert task["learned"] == results["accuracy_matrix"][place][place]
        assert task["accuracy"] == results["accuracy_matrix"][-1][place]
        assert task["f1"] == results["f1_matrix"][-1][place]
        assert task["routed"] == results["routed"]["tasks"][place]["accuracy"]
        assert task["routed_f1"] == results["routed"]["tasks"][place]["f1"]
        assert task["by_class"] == results["by_class"][task["name"]]


def test_csv_has_a_line_for_each_score(copy: Path, call: Answered) -> None:
    assert call("results", copy, "--csv") == 0
    lines = list(csv.DictReader(io.StringIO(call.out)))
    values = {(line["task"], line["class"], line["score"]): line["value"] for line in lines}
    assert len(values) == len(lines)
    assert {line["experiment"] for line in lines} == {"demo"}
    results = published(copy)
    assert float(values["", "", "average_accuracy"]) == results["average_accuracy"]
    for task, classes in results["by_class"].items():
        for label, scores in classes.items():
            for score, value in scores.items():
                assert float(values[task, label, score]) == value


def test_csv_and_json_exclude_each_other(copy: Path, call: Answered) -> None:
    assert call("results", copy, "--csv", "--json") == 2
    assert "--csv and --json: keep one of them" in call.error


def test_several_experiments_stand_side_by_side(copy: Path, call: Answered) -> None:
    other = Path(shutil.copytree(copy, copy.with_name("other")))
    results = published(other)
    results["accuracy_matrix"][-1][0] = 0.125
    (other / "results" / "final_results.json").write_text(json.dumps(results))
    assert call("results", copy, other) == 0
    lines = [line.split() for line in call.out.splitlines()]
    first = f"{published(copy)['accuracy_matrix'][-1][0]:.3f}"
    assert ["task", "demo", "other"] in lines
    assert ["animals", first, "0.125"] in lines


def test_experiments_of_the_same_name_are_told_apart(
    copy: Path, tmp_path: Path, call: Answered
) -> None:
    other = shutil.copytree(copy, tmp_path / "machine-b" / "demo")
    found = call.json("results", copy, other)["experiments"]
    assert [each["name"] for each in found] == ["experiments/demo", "machine-b/demo"]


def test_a_run_that_is_not_finished_is_shown_as_far_as_it_went(copy: Path, call: Answered) -> None:
    results = published(copy)
    unfinished(copy, tasks=2)
    (shown,) = call.json("results", copy)["experiments"]
    assert (shown["finished"], shown["tasks_learned"], shown["metrics"]) == (False, 2, {})
    first, second, third = shown["tasks"]
    assert first["accuracy"] == results["accuracy_matrix"][1][0]
    assert second["f1"] == results["f1_matrix"][1][1]
    assert second["routed"] == results["routed_accuracy_matrix"][1][1]
    assert third["accuracy"] is None  # measured for forward transfer, but not learned
    assert call("results", copy) == 0
    assert "2 of 3 tasks learned, not finished" in call.out


def test_a_torn_result_file_gives_way_to_the_checkpoint(copy: Path, call: Answered) -> None:
    (copy / "results" / "final_results.json").write_text('{"average_')
    (shown,) = call.json("results", copy)["experiments"]
    assert (shown["finished"], shown["tasks_learned"]) == (False, 3)


def test_an_edited_result_file_is_refused_by_name_with_exit_code_1(
    copy: Path, call: Answered
) -> None:
    results = published(copy)
    results["f1_matrix"][0][0] = 7.5
    (copy / "results" / "final_results.json").write_text(json.dumps(results))
    assert call("results", copy) == 1
    assert "final_results.json is damaged or was edited: f1_matrix.0.0" in call.error


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("experiments/demmo", "did you mean experiments/demo?"),
        ("experiments", "the experiments in it are demo; for instance, experiments/demo"),
        ("no/where", "expected, for instance, experiments/demo"),
    ],
)
def test_a_path_that_is_no_experiment_is_refused_in_one_line(
    typed: str, meant: str, copy: Path, call: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parents[1])
    assert call("results", typed) == 2
    assert f"{typed} is no experiment; {meant}" in call.error


def test_names_in_a_result_file_do_not_steer_the_terminal(copy: Path, call: Answered) -> None:
    text = (copy / "results" / "final_results.json").read_text()
    (copy / "results" / "final_results.json").write_text(text.replace("animals", "\\u001b[2J"))
    assert call("results", copy) == 0
    assert "\x1b" not in call.out
