"""Reports of studies: their statistics are those of ``plora-cl study``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plora_cl.cli.main import main
from plora_cl.study.file import read_study
from plora_cl.study.plan import PlannedRun, planned_runs
from plora_cl.wording import counted
from report.conftest import Page, Report
from study.conftest import begin, finish, write

ACCURACY = {"plain": (0.71, 0.74, 0.78, 0.69), "ewc": (0.80, 0.79, 0.85, 0.83)}


def matrices(accuracy: float, tasks: int = 2) -> dict[str, Any]:
    matrix = [[accuracy] * tasks] * tasks
    return {"f1_matrix": matrix, "untrained_accuracy": [0.1] * tasks}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a study whose runs have ended."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "p.yaml"
    write(file, baseline="plain")
    for method, accuracies in ACCURACY.items():
        for run, accuracy in zip(planned(file, method), accuracies, strict=True):
            finish(run, accuracy, **matrices(accuracy))
    return file


def planned(file: Path, method: str) -> list[PlannedRun]:
    return [run for run in planned_runs(read_study(file), str(file)) if run.method == method]


@pytest.mark.parametrize("asked", ["p.yaml", "experiments/four"])
def test_the_statistics_are_those_of_the_study(
    study: Path, asked: str, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["study", str(study), "--summarise"])
    summary = json.loads(Path("experiments/four/summary.json").read_text())
    groups = {(g["method"], g["metric"]): g for g in summary["groups"]}
    ewc = groups["ewc", "average_accuracy"]
    half = (ewc["estimate"]["high"] - ewc["estimate"]["low"]) / 2
    difference = ewc["comparison"]["difference"]
    table = (report(asked) / "tables" / "summary.tex").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("ewc")]
    assert "4 (2 orders)" in row
    assert rf"{ewc['estimate']['mean']:.3f} $\pm$ {half:.3f}" in row
    half = (difference["high"] - difference["low"]) / 2
    assert rf"{difference['mean']:+.3f} $\pm$ {half:.3f}" in row
    assert f"{ewc['comparison']['t_p']:.2g}" in row
    capsys.readouterr()


def test_without_a_summary_the_baseline_is_named_by_the_user(study: Path, report: Report) -> None:
    assert "Difference in ACC" not in Page(report("experiments/four") / "report.html").text
    page = Page(report("experiments/four", "--baseline", "plain") / "report.html")
    assert "Difference in ACC to plain" in page.text
    assert "8 runs of 2 methods; 8 of them have ended." in page.text


def test_runs_that_have_not_ended_are_named_and_left_out(study: Path, report: Report) -> None:
    write(study, baseline="plain", seeds=[1, 2, 3])
    begin(planned(study, "ewc")[-1])
    page = Page(report(study) / "report.html")
    assert "ewc__wa__seed3 has not ended: it is not in the statistics" in page.text
    assert "9 runs of 2 methods; 8 of them have ended." in page.text


def test_runs_that_cannot_be_compared_are_named_and_shown(study: Path, report: Report) -> None:
    run = planned(study, "ewc")[0]
    finish(run, 0.9, **matrices(0.9), learning_accuracy=0.5)
    page = Page(report(study) / "report.html")
    assert f"{run.name} is not in the statistics" in page.text
    assert "is not learning accuracy 0.5" in page.text


def test_a_study_and_a_run_are_compared(study: Path, finished: Path, report: Report) -> None:
    page = Page(report(study, finished, "--names", "four", "mine") / "report.html")
    assert "9 runs of 3 methods" in page.text
    assert "four: ewc" in page.text


def test_tasks_are_renamed_by_name_whatever_the_order(study: Path, report: Report) -> None:
    accuracy = {"a": 0.9, "w": 0.5}
    for run in [*planned(study, "plain"), *planned(study, "ewc")]:
        final = [accuracy[name] for name in run.order]
        finish(run, 0.7, **{**matrices(0.7), "accuracy_matrix": [final, final]})
    out = report(study, "--task-names", "Animals", "Weather")
    table = (out / "tables" / "final-accuracy.tex").read_text()
    assert r"method & Animals & Weather \\" in table
    assert r"plain & 0.900 & 0.500 \\" in table


def test_a_study_of_which_nothing_has_begun_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.yaml")
    assert main(["report", "p.yaml"]) == 2
    assert "no run of this study has begun" in capsys.readouterr().err


@pytest.mark.parametrize("tasks", [1, 12, 45, 300])
def test_streams_of_any_length_are_drawn(
    tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"task-{k}" for k in range(tasks)]
    write(tmp_path / "p.yaml", orders={"long": names}, seeds=[1], methods=["plain"], tasks={
        name: {"path": f"data/{name}"} for name in names
    })  # fmt: skip
    (run,) = planned(tmp_path / "p.yaml", "plain")
    values = [
        [0.9 - 0.3 * (r - c) / tasks if c <= r else None for c in range(tasks)]
        for r in range(tasks)
    ]
    finish(run, 0.7, **{**matrices(0.7, tasks), "accuracy_matrix": values, "f1_matrix": values})
    costs = {"seconds": {name: {"train": 1.0, "evaluate": 0.5} for name in names}}
    (run.folder / "results" / "computational_costs.json").write_text(json.dumps(costs))
    out = report(run.folder)
    assert counted(tasks, "task") in Page(out / "report.html").text
    assert (out / "report.html").stat().st_size < 700_000
    assert all(path.stat().st_size < 250_000 for path in (out / "figures").iterdir())
