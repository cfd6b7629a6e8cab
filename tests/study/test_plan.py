"""Which runs a YAML file means, and what is said where it means none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plora_cl.config.learners import LEARNERS
from plora_cl.errors import SettingsError
from plora_cl.study.file import read_study
from plora_cl.study.plan import notes_on, planned_runs
from study.conftest import Planned, write


def test_there_is_one_run_for_each_method_order_and_seed(planned: Planned) -> None:
    names = [run.name for run in planned()]
    assert names == [
        f"{method}__{order}__seed{seed}"
        for seed in (1, 2)
        for order in ("aw", "wa")
        for method in ("plain", "ewc")
    ]


def test_a_run_has_the_settings_of_its_base_order_method_variant_and_seed(
    planned: Planned,
) -> None:
    variants = {"isolated": {"composition": "isolated"}, "sum": {"composition": "cumulative"}}
    run = next(r for r in planned(variants=variants) if r.name == "ewc__wa__sum__seed2")
    settings = run.settings
    assert settings.epochs == 2
    assert list(settings.tasks) == [
        {"name": "w", "path": "data/weather"},
        {"name": "a", "path": "data/animals"},
    ]
    assert settings.use_ewc
    assert not settings.use_orthogonal
    assert settings.composition == "cumulative"
    assert settings.seed == 2
    assert run.folder == Path("experiments/four/ewc__wa__sum__seed2")


def test_a_preset_is_weaker_than_the_base(planned: Planned) -> None:
    settings = planned(base={"preset": "quickstart", "epochs": 1})[0].settings
    assert (settings.epochs, settings.max_length) == (1, 96)


def test_a_method_in_which_no_variant_has_an_effect_runs_once(planned: Planned) -> None:
    variants = {"weak": {"lambda_ewc": 1.0}, "strong": {"lambda_ewc": 1000.0}}
    names = [run.name for run in planned(variants=variants, orders={"aw": ["a", "w"]}, seeds=[1])]
    assert names == ["plain__aw__seed1", "ewc__aw__weak__seed1", "ewc__aw__strong__seed1"]


def test_a_variant_is_compared_with_the_base_and_not_with_the_defaults(
    planned: Planned,
) -> None:
    runs = planned(
        base={"composition": "cumulative"},
        variants={"isolated": {"composition": "isolated"}, "as-the-base": {}},
        methods=["plain", "linear"],
        orders={"aw": ["a", "w"]},
        seeds=[1],
    )
    assert {run.name: run.settings.composition for run in runs if run.method == "plain"} == {
        "plain__aw__isolated__seed1": "isolated",
        "plain__aw__as-the-base__seed1": "cumulative",
    }
    assert [run.name for run in runs if run.method == "linear"] == ["linear__aw__seed1"]


def test_the_floor_has_the_variants_that_change_its_examples(planned: Planned) -> None:
    variants = {"few": {"max_train_examples": 8}, "many": {"max_train_examples": 16}}
    runs = planned(variants=variants, methods=["tfidf"], seeds=[1], orders={"aw": ["a", "w"]})
    assert [run.settings.max_train_examples for run in runs] == [8, 16]


def test_the_floor_accepts_any_base(planned: Planned) -> None:
    base = {"shared": "none"}
    assert planned(base=base, methods=["plain", "tfidf"])[-1].is_floor


def test_the_floor_has_no_variants(planned: Planned) -> None:
    variants = {"isolated": {"composition": "isolated"}, "sum": {"composition": "cumulative"}}
    runs = planned(variants=variants, methods=["tfidf"], seeds=[1], orders={"aw": ["a", "w"]})
    assert [run.name for run in runs] == ["tfidf__aw__seed1"]
    assert runs[0].is_floor


def test_without_orders_the_tasks_of_the_base_are_learned(planned: Planned) -> None:
    base = {"tasks": ["data/animals"]}
    assert {run.name for run in planned(orders=None, tasks=None, base=base)} == {
        f"{method}__tasks__seed{seed}" for method in ("plain", "ewc") for seed in (1, 2)
    }


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"metods": []}, "metods: unknown key; did you mean methods?"),
        ({"methods": ["plian"]},
         "methods: plian: unknown learner; did you mean plain?, or {plian: {...settings}} for a "
         "method of your own"),
        ({"methods": []}, "methods: {}; expected a value that is not empty"),
        ({"methods": ["plain", "plain"]}, "methods: 'plain' is listed twice; keep one"),
        ({"seeds": [1, 1]}, "seeds: [1, 1]; expected each one once"),
        ({"seeds": ["x"]}, "seeds.0: 'x'; expected a whole number"),
        ({"jobs": 0}, "jobs: 0; expected at least 1"),
        ({"name": "a/b"},
         "name: 'a/b'; expected letters, digits and . + _ - without two underscores in a row, "
         "since it becomes part of a folder's name"),
        ({"baseline": "plan"}, "baseline: 'plan': unknown method; did you mean plain?"),
        ({"base": {"seed": 3}}, "base.seed: every run has its own; use seeds and name"),
        ({"variants": {"a": {"seed": 3}}},
         "variants.a.seed: every run has its own; use seeds and name"),
        ({"methods": [{"x": {"experiment_dir": "y"}}]},
         "methods.x.experiment_dir: is the same for every run; use base.experiment_dir"),
        ({"variants": {"a": {"tasks": ["x"]}}},
         "variants.a.tasks: is the same for every run; use orders"),
        ({"base": {"preset": 5}}, "base.preset: 5; expected a name"),
        ({"orders": [["a", "w"]]},
         "orders: ['a', 'w']; expected the name of a stream, or {name: [tasks]}"),
        ({"orders": ["plora5", "plora5"]}, "orders: ['plora5', 'plora5']; expected each one once"),
        ({"orders": None}, "tasks: there are no orders to use a, w; list them in orders"),
        ({"methods": None}, "methods: is missing; it has to be given"),
        ({"methods": [{"x": {"like": ["a"]}}]},
         "methods: x: unknown learner; there are full, no-ewc, no-olora, no-replay, "
         "no-lateral, plain, fine-tuning, sequential-lora, joint, linear, tfidf, or {x: "
         "{...settings}} for a method of your own"),
        ({"methods": [{"full": {"lambda_ewc": 5}}]},
         "methods: full: has the name of a learner and does not start from it; write like: full, "
         "or take another name"),
        ({"methods": [{"full": {"like": "plain"}}]},
         "methods: full: has the name of a learner and does not start from it; write like: full, "
         "or take another name"),
        ({"tune": {"learning_rate": [1e-3, 1e-3]}},
         "tune.learning_rate: [0.001, 0.001]; expected each one once"),
        ({"tune": {"learning_rate": [1e-3], "seed": 1}},
         "tune.seed: 1 is one of the seeds of the runs: values would be chosen by the results that "
         "they are later measured by; take another"),
        ({"tune": {"learning_rat": [1e-3]}},
         "tune.learning_rat: unknown key; did you mean learning_rate?"),
    ],
)  # fmt: skip
def test_a_mistake_is_explained_in_one_line(file: Path, change: dict[str, Any], line: str) -> None:
    write(file, **change)
    with pytest.raises(SettingsError) as caught:
        read_study(file)
    assert caught.value.problems == (f"{file}: {line}",)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"base": {"preset": "nope"}}, "p.yaml: base.preset: 'nope': unknown preset"),
        ({"methods": [{"own": {"lambda_ewc": 0}}]},
         "p.yaml: methods.own: lambda_ewc: lambda_ewc is 0, so use_ewc could have no effect"),
        ({"base": {"epoch": 3}}, "p.yaml: base: epoch: unknown setting; did you mean epochs?"),
        ({"variants": {"x": {"compositon": "isolated"}}},
         "p.yaml: variants.x: compositon: unknown setting; did you mean composition?"),
        ({"methods": [{"own": {"use_ewc": 1}}]},
         "p.yaml: methods.own: use_ewc: 1; expected true or false"),
        ({"methods": [{"own": {"use_ewc": True, "shared": "none"}}]},
         "p.yaml: methods.own: shared: EWC protects"),
    ],
)  # fmt: skip
def test_a_mistake_in_settings_names_the_place_and_is_told_once(
    planned: Planned, change: dict[str, Any], line: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        planned(**change)
    (problem,) = caught.value.problems
    assert problem.startswith(line)
    assert ("(in " in problem) == ("preset" not in line)


def test_a_name_that_is_nearly_one_of_the_file_is_recognised(planned: Planned) -> None:
    with pytest.raises(SettingsError) as caught:
        planned(tasks={"reviews": {"path": "data/a"}}, orders={"o": ["reviws"]})
    (problem,) = caught.value.problems
    assert "(did you mean 'reviews'?); the names are reviews, " in problem


def test_a_folder_has_the_short_name_of_the_file(planned: Planned) -> None:
    runs = planned(tasks={"short": "data/animals"}, orders={"o": ["short"]}, seeds=[1])
    assert list(runs[0].settings.tasks) == [{"name": "short", "path": "data/animals"}]


def test_a_setting_of_a_method_without_effect_is_noted(file: Path) -> None:
    methods = ["plain", {"s": {"like": "plain", "lambda_ewc": 5}}]
    write(file, methods=methods, base={"lambda_ewc": 7})
    study = read_study(file)
    assert notes_on(study, planned_runs(study, "p.yaml")) == [
        "methods.s: lambda_ewc has no effect here: use_ewc is false"
    ]


def test_a_setting_of_a_method_with_effect_in_one_variant_is_not_noted(file: Path) -> None:
    methods = [{"s": {"like": "plain", "lambda_ewc": 5}}]
    write(file, methods=methods, variants={"off": {}, "on": {"use_ewc": True}})
    study = read_study(file)
    assert notes_on(study, planned_runs(study, "p.yaml")) == []


def test_a_short_name_may_be_nearly_that_of_a_stream(planned: Planned) -> None:
    runs = planned(tasks={"plora-5": "data/animals"}, orders={"o": ["plora-5"]}, seeds=[1])
    assert list(runs[0].settings.tasks) == [{"name": "plora-5", "path": "data/animals"}]


def test_every_learner_is_a_bundle_of_settings_that_may_stand_together(planned: Planned) -> None:
    runs = planned(methods=list(LEARNERS), orders={"aw": ["a", "w"]}, seeds=[1])
    assert [run.method for run in runs] == list(LEARNERS)
    by_method = {run.method: run.settings for run in runs}
    techniques = ("use_ewc", "use_orthogonal", "use_replay", "use_lateral")
    assert all(getattr(by_method["full"], name) for name in techniques)
    for name, method in zip(
        techniques, ("no-ewc", "no-olora", "no-replay", "no-lateral"), strict=True
    ):
        off = [t for t in techniques if not getattr(by_method[method], t)]
        assert off == [name]
