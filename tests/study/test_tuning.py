"""What is tried, on what, and what is chosen; results are pretended, texts are real."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from plora_cl.errors import StudyError
from plora_cl.study.file import Tuning, read_study, tuning_class
from plora_cl.study.plan import PlannedRun, planned_runs
from plora_cl.study.strength_search import Choice, choose, write_choice
from study.conftest import Planned, finish, write

FOLDER = Path("experiments/four")
EWC = ("ewc", "fw", "")


def candidates(**values: Any) -> Tuning:
    return tuning_class().model_validate(values)


@pytest.fixture
def runs(planned: Planned, tmp_path: Path) -> list[PlannedRun]:
    classes = {name: f"{name}s" for name in ("cat", "dog", "rain", "sun", "tea")}
    tiny.make_task(tmp_path / "data" / "five", classes, train=20, test=5)
    tiny.make_tasks(tmp_path / "data")
    tasks = {"f": {"path": "data/five"}, "w": {"path": "data/weather"}}
    return planned(tasks=tasks, orders={"fw": ["f", "w"], "wf": ["w", "f"]})


def scored(score: Callable[[PlannedRun], float], seen: list[PlannedRun] | None = None) -> Any:
    def work(trials: Sequence[PlannedRun]) -> None:
        for run in trials:
            if seen is not None:
                seen.append(run)
            finish(run, validation={"average_accuracy": score(run)})

    return work


def rates(run: PlannedRun) -> float:
    return {0.1: 0.5, 0.01: 0.9, 0.001: 0.9}[run.settings.learning_rate]


def test_the_learning_rate_with_the_best_validation_accuracy_is_chosen_and_the_first_of_equals(
    runs: list[PlannedRun],
) -> None:
    choice = choose(runs, candidates(learning_rate=(0.1, 0.01, 0.001)), FOLDER, scored(rates))
    assert choice.complete
    assert {values["learning_rate"] for values in choice.values.values()} == {0.01}
    assert len(choice.values) == 4  # each method in each order


def test_of_values_within_a_standard_error_of_the_best_the_first_listed_is_chosen(
    runs: list[PlannedRun],
) -> None:
    accuracy = {0.001: 0.86, 0.01: 0.88, 0.1: 0.9}  # of 100 texts: the error is 0.03
    choice = choose(
        runs,
        candidates(learning_rate=tuple(accuracy)),
        FOLDER,
        scored(lambda run: accuracy[run.settings.learning_rate]),
    )
    assert {values["learning_rate"] for values in choice.values.values()} == {0.01}


def test_every_method_has_as_many_trials_of_the_learning_rate(runs: list[PlannedRun]) -> None:
    choice = choose(runs, candidates(learning_rate=(0.1, 0.01)), FOLDER, scored(rates))
    assert [len(trials) for trials in choice.trials.values()] == [2] * 4


def test_what_a_method_or_variant_gives_itself_is_not_tuned(
    runs: list[PlannedRun], planned: Planned
) -> None:
    tasks = {"f": {"path": "data/five"}, "w": {"path": "data/weather"}}
    own = planned(
        tasks=tasks,
        orders={"fw": ["f", "w"]},
        methods=["plain", {"bold": {"like": "plain", "learning_rate": 0.5}}],
        variants={"long": {}, "sum": {"composition": "cumulative", "learning_rate": 0.25}},
        seeds=[1],
    )
    choice = choose(own, candidates(learning_rate=(0.1, 0.01)), FOLDER, scored(rates))
    assert list(choice.values) == [("plain", "fw", "long")]
    assert choice.notes == [
        "learning_rate keeps 0.25 in plain sum: the file gives it there",
        "learning_rate keeps 0.5 in bold long: the file gives it there",
        "learning_rate keeps 0.25 in bold sum: the file gives it there",
    ]


def test_what_is_chosen_changes_no_run_but_its_settings(file: Path, tmp_path: Path) -> None:
    tiny.make_tasks(tmp_path / "data")
    variants = {"long": {}, "sum": {"composition": "cumulative"}}
    write(file, methods=["joint", "plain"], variants=variants)
    study = read_study(file)
    untuned = planned_runs(study, "p.yaml")
    choice = choose(untuned, candidates(learning_rate=(0.01,)), FOLDER, scored(lambda _: 0.5))
    tuned = planned_runs(study, "p.yaml", choice.values)
    assert [run.name for run in tuned] == [run.name for run in untuned]
    assert {run.settings.learning_rate for run in tuned} == {0.01}
    assert sum(run.method == "joint" for run in tuned) == 4  # once for each order and seed


def test_both_halves_of_a_task_are_written_with_its_own_prompts(
    runs: list[PlannedRun], planned: Planned
) -> None:
    tasks = {"f": {"path": "data/five"}, "w": {"path": "data/weather"}}
    prompts = {"f": ["On {label}:"], "w": ["The weather is {label}:"]}
    own = planned(
        base={"replay_prompts": prompts},
        tasks=tasks,
        orders={"fw": ["f", "w"]},
        methods=["no-olora"],
        seeds=[1],
    )
    seen: list[PlannedRun] = []
    tuning = candidates(learning_rate=(0.1,), lambda_ewc=(1.0,))
    choose(own, tuning, FOLDER, scored(lambda _: 0.5, seen))
    assert [run.settings.replay_prompts for run in seen] == [
        None,
        {"f-first": ("On {label}:",), "f-second": ("On {label}:",)},
    ]


def test_a_trial_sees_the_first_task_only_and_a_seed_of_its_own(runs: list[PlannedRun]) -> None:
    seen: list[PlannedRun] = []
    choose(runs, candidates(learning_rate=(0.1, 0.01)), FOLDER, scored(rates, seen))
    assert {run.settings.seed for run in seen} == {0}
    assert all(run.settings.measure_validation for run in seen)
    assert {json.dumps(run.settings.tasks) for run in seen} == {
        '[{"name": "f", "path": "data/five"}]',
        '[{"name": "w", "path": "data/weather"}]',
    }


def test_trials_that_compute_the_same_are_made_once(runs: list[PlannedRun]) -> None:
    seen: list[PlannedRun] = []
    choose(runs, candidates(learning_rate=(0.1, 0.01)), FOLDER, scored(rates, seen))
    assert len(seen) == 4  # two rates, two first tasks; EWC does nothing within one task


def strengths(run: PlannedRun) -> float:
    return run.settings.lambda_ewc / 1000


def test_a_strength_is_tried_on_the_first_task_cut_in_two_by_its_classes(
    runs: list[PlannedRun],
) -> None:
    seen: list[PlannedRun] = []
    tuning = candidates(lambda_ewc=(10.0, 100.0))
    choice = choose(runs, tuning, FOLDER, scored(strengths, seen))
    first, second = seen[0].settings.tasks
    assert first == {"name": "f-first", "path": "data/five", "classes": ["cat", "dog"]}
    assert second == {"name": "f-second", "path": "data/five", "classes": ["rain", "sun", "tea"]}
    assert choice.values == {EWC: {"lambda_ewc": 100.0}}


def test_a_strength_keeps_its_value_where_the_first_task_is_too_small_to_cut(
    runs: list[PlannedRun],
) -> None:
    choice = choose(runs, candidates(lambda_ewc=(10.0, 100.0)), FOLDER, scored(strengths))
    assert ("ewc", "wf", "") not in choice.values
    assert choice.notes == [
        "lambda_ewc keeps 10000.0 where w comes first: it takes 4 classes to cut a task in two"
    ]


def test_a_method_without_the_technique_has_no_strength_to_try(runs: list[PlannedRun]) -> None:
    choice = choose(runs, candidates(lambda_ewc=(10.0, 100.0)), FOLDER, scored(strengths))
    assert not any(method == "plain" for method, _, _ in choice.trials)


def test_strengths_are_tried_with_the_learning_rate_that_was_chosen(
    runs: list[PlannedRun],
) -> None:
    seen: list[PlannedRun] = []
    tuning = candidates(learning_rate=(0.1, 0.01), lambda_ewc=(10.0,))
    choose(runs, tuning, FOLDER, scored(rates, seen))
    assert {run.settings.learning_rate for run in seen if len(run.settings.tasks) == 2} == {0.01}


def test_looking_starts_nothing_and_says_that_it_is_not_complete(runs: list[PlannedRun]) -> None:
    choice = choose(runs, candidates(learning_rate=(0.1, 0.01)), FOLDER)
    assert not choice.complete
    assert len(choice.runs()) == 4
    assert choice.values == {}


def test_what_was_tried_is_not_tried_again(runs: list[PlannedRun]) -> None:
    tuning = candidates(learning_rate=(0.1, 0.01))
    first = choose(runs, tuning, FOLDER, scored(rates))
    assert choose(runs, tuning, FOLDER).values == first.values


def test_a_trial_without_result_stops_the_choice(runs: list[PlannedRun]) -> None:
    with pytest.raises(StudyError, match="cannot choose learning_rate: no result of learning"):
        choose(runs, candidates(learning_rate=(0.1, 0.01)), FOLDER, lambda _: None)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"validation": {"average_accuracy": "x"}}, "validation.average_accuracy: Input"),
        ({"validation": None}, "validation: accuracy or number of texts is missing"),
        (
            {"validation": {"average_accuracy": 0.5}, "tasks": [{"name": "f", "validation": 0}]},
            "validation: accuracy or number of texts is missing",
        ),
        ({}, "validation: accuracy or number of texts is missing"),
    ],
)
def test_a_trial_whose_results_were_edited_is_named_and_chooses_nothing(
    runs: list[PlannedRun], results: dict[str, Any], said: str
) -> None:
    def work(trials: Sequence[PlannedRun]) -> None:
        for run in trials:
            finish(run, validation={"average_accuracy": 0.5})
        finish(trials[0], **results)

    tuning = candidates(learning_rate=(0.1, 0.01))
    with pytest.raises(StudyError, match="tuning cannot choose learning_rate: ") as caught:
        choose(runs, tuning, FOLDER, work)
    assert f"are damaged or were edited (final_results.json: {said}" in str(caught.value)
    only_looked = choose(runs, tuning, FOLDER)
    assert not only_looked.complete
    assert any(said in note for note in only_looked.notes)


def test_every_trial_and_every_choice_is_recorded(runs: list[PlannedRun], tmp_path: Path) -> None:
    tuning = candidates(learning_rate=(0.1, 0.01), lambda_ewc=(10.0, 100.0))
    choice: Choice = choose(runs, tuning, FOLDER, scored(rates))
    write_choice(choice, tmp_path)
    found = json.loads((tmp_path / "tuning.json").read_text())
    assert len(found["trials"]) == 4 * 2 + 2
    assert {
        "method": "ewc",
        "order": "fw",
        "variant": "",
        "learning_rate": 0.01,
        "lambda_ewc": 10.0,
    } in found["chosen"]
    assert {trial["validation_accuracy"] for trial in found["trials"]} == {0.5, 0.9}
    assert len(found["notes"]) == 1
