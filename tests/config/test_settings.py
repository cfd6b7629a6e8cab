"""What single settings accept, which exclude one another, and what identifies a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from plora_cl.config.consistency import ineffective
from plora_cl.config.fields import impacts
from plora_cl.config.precedence import validate
from plora_cl.config.schema import Settings, identity, shape_settings
from plora_cl.config.streams import STREAMS
from plora_cl.errors import SettingsError
from plora_cl.impact import Impact
from plora_cl.setting_types import impact_of

_PLAIN = {"use_ewc": False, "use_orthogonal": False}


def problems(**values: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        validate(values)
    return caught.value.problems


def test_the_defaults_are_a_run_that_can_start() -> None:
    assert validate({}) == Settings()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"epochs": 0}, "settings: epochs: 0; expected at least 1"),
        ({"epochs": "three"}, "settings: epochs: 'three'; expected a whole number"),
        ({"epochs": "3"}, "settings: epochs: '3'; expected a whole number"),
        ({"epochs": 3.0}, "settings: epochs: 3.0; expected a whole number"),
        ({"epochs": True}, "settings: epochs: true; expected a whole number"),
        ({"epochs": None}, "settings: epochs: null; expected a whole number"),
        ({"seed": -1}, "settings: seed: -1; expected at least 0"),
        ({"learning_rate": True}, "settings: learning_rate: true; expected a number"),
        ({"learning_rate": "fast"}, "settings: learning_rate: 'fast'; expected a number"),
        ({"learning_rate": 0}, "settings: learning_rate: 0; expected more than 0"),
        ({"learning_rate": float("nan")}, "settings: learning_rate: nan; expected a finite number"),
        ({"lambda_ewc": "inf"}, "settings: lambda_ewc: 'inf'; expected a finite number"),
        ({"warmup_ratio": 1.5}, "settings: warmup_ratio: 1.5; expected at most 1"),
        ({"ewc_gamma": -0.1}, "settings: ewc_gamma: -0.1; expected at least 0"),
        ({"lora_dropout": 1}, "settings: lora_dropout: 1; expected less than 1"),
        (
            {"keep_last_n_checkpoints": 0},
            "settings: keep_last_n_checkpoints: 0; expected at least 1",
        ),
        (
            {"checkpoint_disk_budget": "lots"},
            "settings: checkpoint_disk_budget: 'lots'; expected a size, for instance 500 MB, "
            "2 GiB or 1000000",
        ),
        (
            {"checkpoint_disk_budget": 0},
            "settings: checkpoint_disk_budget: 0; expected at least 1",
        ),
        ({"use_ewc": 1}, "settings: use_ewc: 1; expected true or false"),
        ({"use_ewc": "yes"}, "settings: use_ewc: 'yes'; expected true or false"),
        (
            {"pooling": "men"},
            "settings: pooling: 'men'; expected 'cls' or 'mean'; did you mean mean?",
        ),
        (
            {"device": "gpu"},
            "settings: device: 'gpu'; expected auto, cpu, cuda, cuda:N or mps",
        ),
        (
            {"model_name": 3},
            "settings: model_name: 3; expected text (in quotes, where YAML takes it for something "
            "else)",
        ),
        ({"model_name": ""}, "settings: model_name: ''; expected a value that is not empty"),
        (
            {"tasks": "ag_news"},
            "settings: tasks: 'ag_news'; expected a list of tasks or the name of a stream; there "
            f"are {', '.join(STREAMS)}",
        ),
        ({"tasks": []}, "settings: tasks: is empty; expected at least one entry"),
        (
            {"lora_target_modules": []},
            "settings: lora_target_modules: is empty; expected at least one entry",
        ),
        (
            {"ewc_fisher": "guessed"},
            "settings: ewc_fisher: 'guessed'; expected 'empirical', 'exact', 'sampled' or "
            "'batched'",
        ),
        (
            {"shared": "layer(0"},
            "settings: shared: 'layer(0' is not a regular expression: missing ), unterminated "
            "subpattern at position 5",
        ),
    ],
)
def test_a_wrong_value_is_one_line_with_the_value_and_what_was_expected(
    values: dict[str, Any], line: str
) -> None:
    assert problems(**values) == (line,)


@pytest.mark.parametrize("name", ["a/b", "a\\b", ".", "..", " a", "a\n", "/"])
def test_an_experiment_name_is_one_plain_folder_name(name: str) -> None:
    (line,) = problems(experiment_name=name)
    assert line.startswith(f"settings: experiment_name: {name!r}; expected the name of one folder")


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (5000, 5000),
        (" 5001 B", 5001),
        ("500 MB", 500_000_000),
        ("1.5kb", 1500),
        ("2 GiB", 2 << 30),
        ("1T", 10**12),
        (None, None),
    ],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(size: object, count: int | None) -> None:
    settings = validate({"checkpoint_disk_budget": size})
    assert settings.checkpoint_disk_budget == count
    assert validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_every_kind_of_device_is_taken(device: str) -> None:
    assert validate({"device": device}).device == device


def test_replay_that_could_have_no_effect_is_refused_and_every_way_out_is_named() -> None:
    (line,) = problems(use_replay=True, shared="none", use_ewc=False)
    for way_out in ("shared: layernorm", "composition: cumulative", "--no-replay"):
        assert way_out in line
    validate({"use_replay": True})
    cumulative = {"shared": "none", "use_ewc": False, "composition": "cumulative"}
    validate({"use_replay": True, **cumulative})
    (line,) = problems(use_replay=True, replay_ratio=0)
    assert line.startswith("settings: replay_ratio: replay_ratio is 0")
    assert "--no-replay" in line


def test_templates_of_prompts_are_a_list_or_lists_by_task() -> None:
    for prompts in (["A {label} text:"], {"news": ["A {label} text:", "{task}: {label}"]}):
        settings = validate({"replay_prompts": prompts})
        assert validate(settings.model_dump(mode="json")) == settings
        assert settings.model_dump(mode="json")["replay_prompts"] == prompts


@pytest.mark.parametrize(
    ("prompts", "problem"),
    [
        (["A text:"], "'A text:' does not contain {label}"),
        ({"news": ["{class} {label}"]}, "{class} is unknown"),
        ([], "is empty"),
        (3, "replay_prompts: 3; expected a list"),
        ("A {label} text", "expected a list"),
        ({"news": "A {label} text"}, "replay_prompts.news: 'A {label} text'; expected a list"),
    ],
)
def test_wrong_templates_are_one_problem_that_names_the_setting(
    prompts: object, problem: str
) -> None:
    (line,) = problems(replay_prompts=prompts)
    assert line.startswith("settings: replay_prompts")
    assert problem in line


@pytest.mark.parametrize("strength", ["lambda_ewc", "lambda_ortho"])
def test_a_penalty_without_strength_is_refused(strength: str) -> None:
    (line,) = problems(use_orthogonal=True, **{strength: 0})
    assert line.startswith(f"settings: {strength}: {strength} is 0, so use_")
    assert "could have no effect; raise it or switch it off" in line


def test_a_misspelt_stream_is_recognised() -> None:
    (line,) = problems(tasks=["bert-order-9"])
    assert "'bert-order-9'; neither a task nor a stream; did you mean bert-order-" in line


def test_prompts_for_a_task_that_is_not_learned_are_told_of() -> None:
    prompts = {"animals": ["{label}:"], "animalz": ["A {label} text:"]}
    tasks = ["data/animals", "data/weather"]
    settings = validate({"use_replay": True, "replay_prompts": prompts, "tasks": tasks})
    assert ineffective(settings, {"replay_prompts", "tasks"}) == [
        "replay_prompts.animalz has no effect here: no task is called animalz"
    ]
    assert ineffective(settings, {"tasks"}) == []


def test_ewc_without_shared_parameters_is_refused_and_both_ways_out_are_named() -> None:
    (line,) = problems(shared="none")
    assert "shared: layernorm" in line
    assert "--no-ewc" in line
    assert validate({"shared": "none", "use_ewc": False}).shared == "none"


def test_ewc_that_keeps_nothing_of_earlier_tasks_is_refused() -> None:
    (line,) = problems(ewc_gamma=0)
    assert line.startswith("settings: ewc_gamma: ewc_gamma is 0, so EWC would keep nothing")
    assert all(way_out in line for way_out in ("ewc_mode: offline", "--no-ewc"))
    assert validate({"ewc_gamma": 0, "ewc_mode": "offline"}).ewc_gamma == 0


@pytest.mark.parametrize("shared", ["lora", "all"])
def test_ewc_may_protect_a_shared_adapter_and_a_whole_encoder(shared: str) -> None:
    validate({"shared": shared, "task_adapters": False, "use_orthogonal": False})


@pytest.mark.parametrize(
    ("values", "ways_out"),
    [
        ({"use_orthogonal": True}, ("--no-orthogonal", "task_adapters: true")),
        ({"use_lateral": True}, ("--no-lateral", "task_adapters: true")),
    ],
)
def test_what_needs_adapters_of_tasks_is_refused_without_them(
    values: dict[str, Any], ways_out: tuple[str, ...]
) -> None:
    (line,) = problems(task_adapters=False, **values)
    assert line.startswith("settings: task_adapters: ")
    assert all(way_out in line for way_out in ways_out)


def test_methods_against_forgetting_beside_joint_training_are_refused_by_name() -> None:
    (line,) = problems(joint=True, use_orthogonal=True)
    assert line.startswith("settings: joint: ")
    assert "(--no-ewc --no-orthogonal)" in line
    off = {"use_ewc": False, "use_orthogonal": False}
    assert validate({"joint": True, **off}).joint
    (line,) = problems(joint=True, use_lateral=True, **off)
    assert "use_lateral could have no effect; switch off what is on (--no-lateral)" in line


def test_fp16_on_the_cpu_is_refused() -> None:
    (line,) = problems(precision="fp16", device="cpu")
    assert line.startswith("settings: precision: fp16 needs a GPU")
    assert validate({"precision": "fp16"}).precision == "fp16"


@pytest.mark.parametrize(
    "tasks",
    [
        ["news", "news"],
        ["data/news", "more/news"],
        ["news", {"name": "news", "path": "data/b"}],
        ["a/news", {"hub": "b/news"}],
    ],
)
def test_a_task_name_used_twice_is_refused(tasks: list[Any]) -> None:
    (line,) = problems(tasks=tasks)
    assert line.startswith("settings: tasks: the task name 'news' is used 2 times")


def test_a_task_spelled_out_stays_a_plain_mapping() -> None:
    entry = {"hub": "someone/news", "text_column": ["a", "b"], "splits": {"test": "validation"}}
    assert validate({"tasks": [entry, "reviews"]}).tasks == (entry, "reviews")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"name": "n", "path": "p", "lable_column": "c"},
            "settings: tasks.1.lable_column: unknown part of a task; did you mean label_column?",
        ),
        (
            {"path": "p", "text_column": [3]},
            "settings: tasks.1.text_column.0: 3; expected text (in quotes, where YAML takes it for "
            "something else)",
        ),
        (
            {"path": "p", "text_column": []},
            "settings: tasks.1.text_column: []; expected a value that is not empty",
        ),
        (
            {"name": "n"},
            "settings: tasks.1: needs exactly one of path, hub, packaged; given: none",
        ),
        (
            {"name": "n", "path": "p", "hub": "h"},
            "settings: tasks.1: needs exactly one of path, hub, packaged; given: path and hub",
        ),
        (
            {"name": "n", "path": "p", "splits": {"trian": "a"}},
            "settings: tasks.1.splits.trian: 'trian'; expected 'train', 'validation' or 'test'; "
            "did you mean train?",
        ),
        (["n"], "settings: tasks.1: ['n']; expected a name, a folder or a mapping"),
        (
            7,
            "settings: tasks.1: 7; expected text (in quotes, where YAML takes it for something "
            "else)",
        ),
        (
            {"path": "p", "name": " "},
            "settings: tasks.1.name: ' '; expected text that is not blank",
        ),
        ({"path": " "}, "settings: tasks.1.path: ' '; expected text that is not blank"),
        (
            {"path": "p", "label_column": None},
            "settings: tasks.1.label_column: null; expected text",
        ),
        (
            {"path": "p", "splits": ["test"]},
            "settings: tasks.1.splits: ['test']; expected a mapping",
        ),
        (
            {"path": "p", "classes": ["x", "x"]},
            "settings: tasks.1.classes: ['x', 'x']; expected at least two class names",
        ),
        (
            {"path": "p", "classes": ["x"]},
            "settings: tasks.1.classes: ['x']; expected at least two class names",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_found_by_its_path(entry: Any, line: str) -> None:
    assert problems(tasks=["first", entry]) == (line,)


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    settings = validate({"experiment_dir": tmp_path, "tasks": [tmp_path / "news"]})
    assert settings.experiment_dir == str(tmp_path)
    assert settings.tasks == (str(tmp_path / "news"),)


def test_all_problems_are_reported_at_once() -> None:
    assert len(problems(epochs=0, batch_size="many", lora_rank=4)) == 3


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_another_value_does_to_a_resumed_run(name: str) -> None:
    marks = [m for m in Settings.model_fields[name].metadata if isinstance(m, Impact)]
    assert marks == [impacts()[name]]


def test_a_setting_that_does_not_say_changes_the_trajectory() -> None:
    undeclared = FieldInfo.from_annotation(int)
    assert impact_of(undeclared) is Impact.TRAJECTORY


def test_only_where_a_run_is_kept_and_where_to_look_is_harmless() -> None:
    harmless = {name for name, impact in impacts().items() if impact is Impact.HARMLESS}
    assert harmless == {
        "experiment_dir",
        "experiment_name",
        "checkpoint_every",
        "keep_last_n_checkpoints",
        "async_checkpoint",
        "checkpoint_disk_budget",
        "cache_dir",
        "measure_validation",
        "hold_out_validation",
        "model_name",
        "tasks",
        "device",
    }
    assert identity(Settings()).keys() == set(Settings.model_fields) - harmless
    assert {impacts()[name] for name in shape_settings() - harmless} == {Impact.STRUCTURAL}


def test_identity_is_plain_json() -> None:
    settings = validate({"tasks": ["a", {"name": "b", "path": "c"}], "lora_target_modules": ["q"]})
    assert json.loads(json.dumps(identity(settings))) == identity(settings)


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"experiment_dir": "elsewhere", "experiment_name": "other"}, True),
        ({"checkpoint_every": 7, "keep_last_n_checkpoints": 1, "cache_dir": "c"}, True),
        ({"checkpoint_disk_budget": "1 GB"}, True),
        ({"device": "cpu"}, True),
        ({"learning_rate": 2e-4}, False),
        ({"lora_r": 4}, False),
    ],
)
def test_two_runs_are_the_same_unless_something_changes_what_they_compute(
    values: dict[str, Any], same: bool
) -> None:
    assert (identity(validate(values)) == identity(Settings())) is same


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({"use_ewc": False, "lambda_ewc": 5}, {"lambda_ewc": "use_ewc is false"}),
        ({"replay_ratio": 0.5}, {"replay_ratio": "use_replay is false"}),
        (
            {"temperature": 1, "top_p": 0.5},
            {"temperature": "use_replay is false", "top_p": "use_replay is false"},
        ),
        (
            {"early_stopping_min_delta": 0.1},
            {
                "early_stopping_min_delta": "early_stopping_patience is 0; set it to the epochs to "
                "wait for a better score, such as 2"
            },
        ),
        ({"replay_tuning": True}, {"replay_tuning": "use_replay is false"}),
        (
            {"use_replay": True, "replay_tuning_epochs": 5, "replay_tuning_r": 4},
            {
                "replay_tuning_epochs": "replay_tuning is false",
                "replay_tuning_r": "replay_tuning is false",
            },
        ),
        ({"use_replay": True, "replay_tuning": True, "replay_tuning_examples": 50}, {}),
        ({"early_stopping_min_delta": 0.1, "early_stopping_patience": 2}, {}),
        ({"ewc_mode": "offline", "ewc_gamma": 0.5}, {"ewc_gamma": "ewc_mode is offline"}),
        ({"ewc_gamma": 0.5}, {}),
        (
            {"checkpoint_every": 0, "keep_last_n_checkpoints": 2},
            {"keep_last_n_checkpoints": "checkpoint_every is 0"},
        ),
        ({"use_orthogonal": False, "lambda_ortho": 2}, {"lambda_ortho": "use_orthogonal is false"}),
        ({"tasks": ["one"], "lambda_ewc": 5}, {"lambda_ewc": "there is only one task"}),
        ({"lateral_rank": 4}, {"lateral_rank": "use_lateral is false"}),
        ({"lateral_rank": 4, "use_lateral": True}, {}),
        ({"tasks": ["one"], "use_lateral": True}, {"use_lateral": "there is only one task"}),
        ({"tasks": ["one"], **_PLAIN, "joint": True}, {"joint": "there is only one task"}),
        (
            {**_PLAIN, "task_adapters": False, "composition": "cumulative", "lora_r": 4},
            {
                "composition": "task_adapters is false",
                "lora_r": "there is no adapter: task_adapters is false and shared is not lora",
            },
        ),
        ({**_PLAIN, "task_adapters": False, "shared": "lora", "lora_r": 4}, {}),
        ({"lambda_ewc": 5, "learning_rate": 1e-3}, {}),
        ({"use_ewc": False, "lambda_ewc": 10_000}, {}),
    ],
)
def test_a_setting_that_was_asked_for_in_vain_is_noted(
    values: dict[str, Any], reasons: dict[str, str]
) -> None:
    expected = [f"{name} has no effect here: {reason}" for name, reason in reasons.items()]
    assert ineffective(validate(values), set(values)) == expected


def test_a_setting_nobody_wrote_is_not_noted() -> None:
    assert ineffective(validate({"replay_ratio": 0.5}), set()) == []


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_is_for(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert "\n" not in description
