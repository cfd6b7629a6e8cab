"""Which source of settings wins, and what is said about what is wrong in them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from plora_cl.config.precedence import dump, resolve, validate
from plora_cl.config.presets import preset_names, read_preset
from plora_cl.config.schema import Settings
from plora_cl.errors import SettingsError

SOURCES = ("default", "recorded", "preset", "file", "flag")


def problems(**sources: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        resolve(**sources)
    return caught.value.problems


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def experiment(folder: Path, **recorded: Any) -> Path:
    """Write an experiment with a config.yaml and a checkpoint; return the checkpoint."""
    settings = validate(
        {"experiment_dir": folder.parent, "experiment_name": folder.name, **recorded}
    )
    write(folder / "config.yaml", dump(settings))
    return write(folder / "checkpoints" / "checkpoint_task0_epoch0_batch9.pt", "")


@pytest.mark.parametrize(("weaker", "stronger"), list(combinations(SOURCES, 2)))
def test_of_two_sources_the_stronger_one_wins(weaker: str, stronger: str, tmp_path: Path) -> None:
    preset = read_preset("quickstart")["batch_size"]
    value = {"default": 32, "recorded": 11, "preset": preset, "file": 13, "flag": 14}
    chosen = {weaker, stronger}
    recorded = {"batch_size": value["recorded"]} if "recorded" in chosen else {}
    experiment(tmp_path / "runs" / "quickstart", **recorded)
    place = {"experiment_dir": str(tmp_path / "runs"), "experiment_name": "quickstart"}
    flags: dict[str, tuple[str, object]] = {name: (f"--{name}", v) for name, v in place.items()}
    if "flag" in chosen:
        flags["batch_size"] = ("--batch-size", value["flag"])
    content = f"batch_size: {value['file']}" if "file" in chosen else ""
    resolved = resolve(
        preset="quickstart" if "preset" in chosen else None,
        config=write(tmp_path / "c.yaml", content),
        flags=flags,
        resume=True,
    )
    assert read_preset("quickstart")["batch_size"] == value["preset"]
    assert resolved.settings.batch_size == value[stronger]


def test_a_set_expression_beats_the_file(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", "weight_decay: 0.5\n")
    resolved = resolve(config=config, assignments=["weight_decay=0.25"])
    assert resolved.settings.weight_decay == 0.25


def test_yaml_scientific_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", "learning_rate: 1e-4\nlambda_ewc: 1e3\n")
    settings = resolve(config=config).settings
    assert (settings.learning_rate, settings.lambda_ewc) == (1e-4, 1e3)


def test_given_are_the_settings_of_file_and_flags_but_not_of_a_preset(tmp_path: Path) -> None:
    resolved = resolve(
        preset="quickstart",
        config=write(tmp_path / "c.yaml", "seed: 1"),
        flags={"batch_size": ("--batch-size", 5)},
        assignments=["top_p=0.5"],
    )
    assert resolved.given == {"seed", "batch_size", "top_p"}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert resolve(config=write(tmp_path / "c.yaml", "# nothing\n")).settings == Settings()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lerning_rate: 0.1", "lerning_rate: unknown setting; did you mean learning_rate?"),
        ("1: 2", "1: unknown setting; `plora-cl train --help` lists them"),
        ("preset: quickstart", "preset: is not a setting; use the flag --preset; in the file of a"),
        ("tasks: [{path:data/a}]", "tasks.0.path:data/a: unknown part of a task; YAML needs a"),
        ("{epochs:3}", "epochs:3: unknown setting; YAML needs a blank after a colon: epochs: 3"),
        ("max-time: 1h", "max-time: is not a setting; use the flag --max-time"),
        ("seed: 1\nepochs: 2\nseed: 3", "line 3: seed is given twice (before on line 1); keep one"),
        (
            "tasks:\n- name: a\n  path: b\n  path: c",
            "line 4: path is given twice (before on line 3); keep one",
        ),
        ("- seed", "['seed']; expected a mapping, one `setting: value` a line"),
        ("seed", "'seed'; expected a mapping"),
        ("seed: 1\nepochs: [", "line 2: expected the node content, but found '<stream end>'"),
        ("seed: 1\n\tepochs: 2", "line 2: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        (
            "seed: !!python/name:os.system x",
            "line 1: could not determine a constructor for the tag",
        ),
        ("seed: !!bool x", "a value does not fit its YAML tag"),
        (
            "experiment_name: 2024-01-01",
            "experiment_name: datetime.date(2024, 1, 1); expected text",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_the_file(
    text: str, line: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "config.yaml", text)
    (problem,) = problems(config=path)
    assert problem.startswith(f"{path}: {line}")
    assert "\n" not in problem


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (problem,) = problems(config=tmp_path / "none.yaml")
    assert problem == f"{tmp_path / 'none.yaml'}: no such file; expected a YAML file"


def test_a_folder_is_not_a_file_of_settings(tmp_path: Path) -> None:
    assert problems(config=tmp_path) == (f"{tmp_path}: cannot be read: Is a directory",)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("seed: 1\nexperiment_name: Ünï".encode("latin-1"))
    (problem,) = problems(config=path)
    assert problem == f"{path}: line 2: not UTF-8 text (byte 0xdc); save the file as UTF-8"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 7\n")
    assert resolve(config=path).settings.seed == 7


def test_deep_nesting_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "tasks: " + "[" * 3000 + "]" * 3000)
    assert problems(config=path) == (f"{path}: is nested too deeply",)


@given(st.text(alphabet="ab:-[]{}!&*#|>'\"% \n\t?,1.~=<", max_size=40))
def test_no_text_at_all_ends_in_anything_but_settings_or_a_settings_error(text: str) -> None:
    try:
        resolve(assignments=[f"tasks={text}"])
    except SettingsError as error:
        lines = error.problems
    else:
        return
    assert lines
    assert all("\n" not in line for line in lines)


def test_problems_of_all_sources_come_together(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "epoch: 3\nbatch_size: 0\n")
    assert problems(
        preset="quikstart",
        config=path,
        flags={"lora_r": ("--lora-r", "eight")},
        assignments=["lora.r=3", "seed=x", "top_p"],
    ) == (
        "preset: 'quikstart': unknown preset; did you mean quickstart? (there are "
        "idbr-sampled, olora-standard, plora5, quickstart)",
        "--set: 'top_p'; expected NAME=VALUE, for instance epochs=3",
        f"{path}: batch_size: 0; expected at least 1",
        f"{path}: epoch: unknown setting; did you mean epochs?",
        "--lora-r: 'eight'; expected a whole number",
        "--set: lora.r: unknown setting; did you mean lora_r?",
        "--set: seed: 'x'; expected a whole number",
    )


def test_a_wrong_value_is_reported_even_where_a_flag_overrides_it(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "epochs: many")
    (problem,) = problems(config=path, flags={"epochs": ("--epochs", 3)})
    assert problem == f"{path}: epochs: 'many'; expected a whole number"


def test_a_flag_settles_a_contradiction_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "shared: none\nuse_replay: true\n")
    flags = {"use_ewc": ("--no-ewc", False), "use_replay": ("--no-replay", False)}
    assert resolve(config=path, flags=flags).settings.shared == "none"


def test_a_contradiction_is_put_down_to_the_more_explicit_source(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "use_ewc: true\nshared: none\n")
    (alone,) = problems(config=path)
    assert alone.startswith(f"{path}: shared: EWC protects")
    (typed,) = problems(config=path, flags={"use_ewc": ("--use-ewc", True)})
    assert typed.startswith("--use-ewc: EWC protects")


def test_set_reaches_into_a_task(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "tasks: [a, {name: b, path: c}]\n")
    assignments = ["tasks.1.text_column=body", "tasks.1.splits.test=dev", "tasks.0=first"]
    settings = resolve(config=path, assignments=assignments).settings
    spelled = {"name": "b", "path": "c", "text_column": "body", "splits": {"test": "dev"}}
    assert settings.tasks == ("first", spelled)


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("tasks.9=a", "--set: tasks.9: tasks has entries 0 to 4, not '9'"),
        ("tasks.0.path=a", "--set: tasks.0.path: tasks.0 is 'ag_news', which has no parts; set "),
        ("seed.x=1", "--set: seed.x: seed is 42, which has no parts; set seed as a whole"),
        ("seed=[", "--set: seed: '[' is not a YAML value: line 1: "),
        ("=3", "--set: '=3'; expected NAME=VALUE, for instance epochs=3"),
    ],
)
def test_a_set_expression_that_leads_nowhere_says_where_it_ends(assignment: str, line: str) -> None:
    (problem,) = problems(assignments=[assignment])
    assert problem.startswith(line)


def test_a_setting_given_by_flag_and_by_set_is_refused() -> None:
    (problem,) = problems(flags={"epochs": ("--epochs", 3)}, assignments=["epochs=4"])
    assert problem == "--set: epochs: also given by --epochs; keep one of them"


class TestResuming:
    def test_the_name_alone_continues_with_the_recorded_settings(self, tmp_path: Path) -> None:
        experiment(tmp_path / "x", seed=7, lora_r=2)
        flags = {
            "experiment_dir": ("--experiment-dir", str(tmp_path)),
            "experiment_name": ("--experiment-name", "x"),
        }
        settings = resolve(flags=flags, resume=True).settings
        assert (settings.seed, settings.lora_r, settings.experiment_name) == (7, 2, "x")

    def test_recorded_settings_count_only_when_resuming(self, tmp_path: Path) -> None:
        experiment(tmp_path / "default", seed=7)
        place = {"experiment_dir": ("--experiment-dir", str(tmp_path))}
        assert resolve(flags=place).settings.seed == 42
        assert resolve(flags=place, resume="auto").settings.seed == 7

    def test_nothing_is_taken_from_a_folder_without_checkpoints(self, tmp_path: Path) -> None:
        experiment(tmp_path / "default", seed=7).unlink()
        place = {"experiment_dir": ("--experiment-dir", str(tmp_path))}
        assert resolve(flags=place, resume="auto").settings.seed == 42

    def test_the_place_may_come_from_a_file_or_a_set_expression(self, tmp_path: Path) -> None:
        experiment(tmp_path / "x", seed=7)
        config = write(tmp_path / "c.yaml", f"experiment_dir: {tmp_path}\n")
        resolved = resolve(config=config, assignments=["experiment_name=x"], resume=True)
        assert resolved.settings.seed == 7

    def test_a_renamed_experiment_stays_where_it_was_found(self, tmp_path: Path) -> None:
        experiment(tmp_path / "old", seed=7)
        (tmp_path / "old").rename(tmp_path / "new")
        config = write(tmp_path / "c.yaml", f"experiment_dir: {tmp_path}\nexperiment_name: new\n")
        settings = resolve(config=config, resume=True).settings
        assert (settings.experiment_name, settings.seed) == ("new", 7)

    def test_the_path_of_a_checkpoint_names_its_experiment(self, tmp_path: Path) -> None:
        path = experiment(tmp_path / "runs" / "x", seed=7)
        settings = resolve(resume=str(path)).settings
        assert (settings.experiment_dir, settings.experiment_name) == (str(tmp_path / "runs"), "x")
        assert settings.seed == 7

    def test_a_relative_path_works_from_within_the_experiment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = experiment(tmp_path / "runs" / "x", seed=7)
        monkeypatch.chdir(path.parent)
        assert resolve(resume=path.name).settings.experiment_name == "x"
        monkeypatch.chdir(tmp_path)
        settings = resolve(resume=str(path.relative_to(tmp_path))).settings
        assert (settings.experiment_dir, settings.seed) == ("runs", 7)

    @pytest.mark.parametrize("resume", [True, "auto", False])
    def test_the_record_of_an_experiment_means_that_experiment_wherever_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
    ) -> None:
        experiment(tmp_path / "old" / "x", seed=7)
        (tmp_path / "old").rename(tmp_path / "new")
        monkeypatch.chdir(tmp_path / "new" / "x")
        for config in (tmp_path / "new" / "x" / "config.yaml", Path("config.yaml")):
            settings = resolve(config=config, resume=resume).settings
            assert (settings.experiment_dir, settings.experiment_name) == (
                str(tmp_path / "new"),
                "x",
            )
            assert settings.seed == 7

    def test_a_flag_starts_another_experiment_beside_the_recorded_one(self, tmp_path: Path) -> None:
        experiment(tmp_path / "x", seed=7)
        flags: dict[str, tuple[str, object]] = {"experiment_name": ("--experiment-name", "y")}
        settings = resolve(config=tmp_path / "x" / "config.yaml", flags=flags).settings
        assert (settings.experiment_dir, settings.experiment_name) == (str(tmp_path), "y")

    def test_settings_recorded_by_a_future_version_are_named(self, tmp_path: Path) -> None:
        path = experiment(tmp_path / "x")
        recorded = tmp_path / "x" / "config.yaml"
        recorded.write_text(recorded.read_text() + "quantum: true\n")
        (problem,) = problems(resume=str(path))
        assert problem.startswith(f"{recorded}: quantum: unknown setting")

    @pytest.mark.parametrize("resume", [False, True])
    def test_a_recorded_setting_of_a_missing_package_has_the_same_hint_everywhere(
        self, tmp_path: Path, resume: bool
    ) -> None:
        experiment(tmp_path / "x")
        recorded = tmp_path / "x" / "config.yaml"
        recorded.write_text(recorded.read_text() + "quantum: true\nlerning_rate: 1.0\n")
        hint = "if the run used an installed package that declares it, install that again"
        assert problems(config=recorded, resume=resume) == (
            f"{recorded}: quantum: unknown setting; {hint}",
            f"{recorded}: lerning_rate: unknown setting; {hint}; did you mean learning_rate?",
        )


class TestPresets:
    def test_there_are_published_protocols_the_five_hub_tasks_and_the_quickstart(self) -> None:
        assert preset_names() == ["idbr-sampled", "olora-standard", "plora5", "quickstart"]

    @pytest.mark.parametrize("name", preset_names())
    def test_each_is_valid_and_names_its_experiment(self, name: str) -> None:
        assert resolve(preset=name).settings.experiment_name == name

    def test_plora5_spells_out_the_defaults(self) -> None:
        preset = resolve(preset="plora5").settings
        assert preset.model_copy(update={"experiment_name": "default"}) == Settings()

    def test_an_unknown_one_is_told_what_there_is(self) -> None:
        (problem,) = problems(preset="imagenet")
        names = ", ".join(preset_names())
        assert problem == f"preset: 'imagenet': unknown preset; there are {names}"


NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=12
)
NUMBERS = st.floats(min_value=1e-12, max_value=1e12)
ENTRIES = NAMES | st.fixed_dictionaries(
    {"name": NAMES, "path": NAMES},
    optional={
        "text_column": NAMES | st.lists(NAMES, min_size=1, max_size=2),
        "label_column": NAMES,
        "splits": st.dictionaries(st.sampled_from(["train", "test"]), NAMES),
    },
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "model_name": NAMES,
        "tasks": st.lists(ENTRIES, min_size=1, max_size=4),
        "experiment_dir": NAMES,
        "cache_dir": st.none() | NAMES,
        "seed": st.integers(0, 2**63 - 1),
        "epochs": st.integers(1, 2**31 - 1),
        "learning_rate": NUMBERS,
        "lambda_ewc": NUMBERS,
        "warmup_ratio": st.floats(0, 1),
        "lora_target_modules": st.none() | st.lists(NAMES, min_size=1, max_size=3),
        "composition": st.sampled_from(["isolated", "cumulative"]),
        "use_orthogonal": st.booleans(),
    },
)


@given(VALUES)
def test_what_is_recorded_reads_back_to_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    names = [e if isinstance(e, str) else e["name"] for e in values.get("tasks", ())]
    assume(len({PurePath(name).name for name in names}) == len(names))
    settings = validate(values)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(dump(settings), encoding="utf-8")
    assert resolve(config=path).settings == settings


def test_the_record_holds_every_setting_in_the_order_of_the_schema() -> None:
    recorded = yaml.safe_load(dump(Settings()))
    assert list(recorded) == list(Settings.model_fields)
