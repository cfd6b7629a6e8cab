"""Runs and trials that name the same texts had the same ones, or nothing is compared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from plora_cl.cli.study.command import main
from plora_cl.config.schema import identity
from plora_cl.data.sources.declaration import parse_task
from plora_cl.data.sources.entry import task_name
from plora_cl.errors import StudyError
from plora_cl.study.file import tuning_class
from plora_cl.study.plan import PlannedRun
from plora_cl.study.strength_search import choose
from study.conftest import Planned, finish, write

FOLDER = Path("experiments/four")
TASKS = {"f": {"path": "data/four-classes"}, "w": {"path": "data/weather"}}
DIFFERENT = "learned the task 'f' from different texts, so that they cannot be compared"


@pytest.fixture
def plan(planned: Planned, tmp_path: Path) -> Planned:
    classes = {name: f"{name}s" for name in ("cat", "dog", "rain", "sun")}
    tiny.make_task(tmp_path / "data" / "four-classes", classes, train=20, test=5)
    tiny.make_tasks(tmp_path / "data")

    def with_texts(**changes: Any) -> list[PlannedRun]:
        orders = {"fw": ["f", "w"], "wf": ["w", "f"]}
        return planned(**{"methods": ["plain"], "tasks": TASKS, "orders": orders, **changes})

    return with_texts


def change_texts(folder: Path = Path("data/four-classes")) -> None:
    path = folder / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")


def learn(run: PlannedRun, *, recorded: bool = True, **results: Any) -> None:
    """Leave behind what a run does that learned from the texts as they are now."""
    data = [
        {"name": task_name(entry), "train": f"picked by seed {run.seed}", "test": "x"}
        | ({"source": parse_task(entry).content_digest()} if recorded else {})
        for entry in run.settings.tasks
    ]
    finish(run, identity={**identity(run.settings), "data": data}, **results)


def work(runs: Sequence[PlannedRun]) -> None:
    for run in runs:
        learn(run, validation={"average_accuracy": 0.5})


def summarise(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([str(file), "--summarise"])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_runs_of_any_order_and_seed_from_the_same_texts_are_compared(
    plan: Planned, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in plan():
        learn(run)
    code, said = summarise(file, capsys)
    assert code == 0
    assert re.search(r"^plain +- +4 +2 orders ", said, re.MULTILINE)


def test_the_summary_fits_the_terminal_and_says_what_it_hides(
    plan: Planned,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = ["plain", {"ewc": {"like": "plain", "use_ewc": True}}]
    for run in plan(methods=methods, baseline="plain"):
        learn(run)
    monkeypatch.setenv("COLUMNS", "80")
    _, said = summarise(file, capsys)
    table = said[said.index("\nSummary\n") : said.index("Hidden (80 columns are too few): ")]
    assert max(map(len, table.splitlines())) <= 80
    assert "average accuracy" in table
    assert "p (perm.)" not in table
    assert "|" not in table
    assert f"COLUMNS=200 or {FOLDER}/summary.md shows them" in said
    assert "\n± is half of the 95 % t-interval" in said
    monkeypatch.setenv("COLUMNS", "200")
    _, said = summarise(file, capsys)
    assert "p (perm.)" in said
    assert "Hidden" not in said


@pytest.mark.parametrize("last", [1, 2, 3])  # another order, another seed, both
def test_runs_from_texts_that_were_changed_in_between_are_not(
    plan: Planned, file: Path, capsys: pytest.CaptureFixture[str], last: int
) -> None:
    runs = plan()
    learn(runs[0])
    change_texts()
    learn(runs[last])
    code, said = summarise(file, capsys)
    assert code == 2
    assert f"Error: {runs[last].folder} and {runs[0].folder} {DIFFERENT}" in said
    assert not (FOLDER / "summary.csv").exists()


def test_results_that_do_not_say_what_they_learned_from_are_compared_as_before(
    plan: Planned, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan()
    learn(runs[0], recorded=False)
    change_texts()
    for run in runs[1:]:
        learn(run)
    assert summarise(file, capsys)[0] == 0


def test_other_tasks_of_the_same_name_may_have_other_texts(
    plan: Planned, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {
        "f": {"path": "data/four-classes"},
        "w": {"path": "data/four-classes", "classes": ["cat", "dog"]},
    }
    for run in plan(tasks=tasks):
        learn(run)
    assert summarise(file, capsys)[0] == 0


TUNINGS = ({"learning_rate": [0.1, 0.01]}, {"lambda_ewc": [1.0, 10.0]})


@pytest.mark.parametrize("tune", TUNINGS)  # the whole first task; its halves
def test_runs_are_not_compared_where_their_trials_saw_other_texts(
    plan: Planned, file: Path, capsys: pytest.CaptureFixture[str], tune: dict[str, Any]
) -> None:
    method = {"ewc": {"like": "plain", "use_ewc": True}}
    runs = plan(methods=[method], tune=tune, orders={"fw": ["f", "w"]})
    choose(runs, tuning_class()(**tune), FOLDER, work)
    chosen = {name: values[0] for name, values in tune.items()}
    tuned = plan(methods=[method], tune=tune, orders={"fw": ["f", "w"]}, base=based(**chosen))
    write(file, methods=[method], tune=tune, tasks=TASKS, orders={"fw": ["f", "w"]})
    work(tuned)
    code, said = summarise(file, capsys)
    assert code == 0, said
    assert re.search(r"^ewc +- +2 ", said, re.MULTILINE)
    change_texts()
    work(tuned)
    code, said = summarise(file, capsys)
    assert code == 2
    assert "from different texts" in said
    assert str(FOLDER / "tuning") in said


def based(**changes: Any) -> dict[str, Any]:
    return {"experiment_dir": "experiments", "epochs": 2, **changes}


def test_trials_of_different_texts_choose_nothing(plan: Planned) -> None:
    runs = plan(seeds=[1], orders={"fw": ["f", "w"]})
    tuning = tuning_class()(learning_rate=(0.1, 0.01))

    def changed_in_between(trials: Sequence[PlannedRun]) -> None:
        work(trials[:1])
        change_texts()
        work(trials[1:])

    with pytest.raises(StudyError, match=DIFFERENT):
        choose(runs, tuning, FOLDER, changed_in_between)
    assert any(DIFFERENT in note for note in choose(runs, tuning, FOLDER).notes)


def test_a_source_that_is_no_digest_is_refused_as_damaged(
    plan: Planned, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = plan()[0]
    learn(run)
    path = run.folder / "results" / "final_results.json"
    found = json.loads(path.read_bytes())
    found["identity"]["data"][0]["source"] = 5
    path.write_text(json.dumps(found))
    code, said = summarise(file, capsys)
    assert code == 2
    assert "identity.data.0.source: Input should be a valid string, found 5)" in said
