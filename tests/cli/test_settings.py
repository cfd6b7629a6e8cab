"""``plora-cl init`` writes a file that trains; ``plora-cl settings`` says what can be set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import plora_cl
from plora_cl.cli.main import main
from plora_cl.config.fields import setting_fields
from plora_cl.config.presets import preset_names
from plora_cl.config.published.json_schema import settings_schema
from plora_cl.errors import SettingsError

PUBLISHED = Path(__file__).parents[2] / "docs" / "settings.schema.json"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def accepted(values: dict[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator(settings_schema())
    return validator.is_valid(json.loads(json.dumps(values)))


def test_the_file_has_the_defaults_and_the_name_of_the_file() -> None:
    assert main(["init", "reviews.yaml"]) == 0
    assert plora_cl.load_settings("reviews.yaml") == plora_cl.load_settings(
        experiment_name="reviews"
    )


def test_every_setting_of_the_file_can_be_uncommented() -> None:
    assert main(["init", "reviews.yaml"]) == 0
    lines = Path("reviews.yaml").read_text().splitlines()
    names = tuple(setting_fields().model_fields)
    block = False
    for place, line in enumerate(lines):
        begins = line.startswith("# ") and line[2:].partition(":")[0] in names
        block = begins or (block and line.startswith(("# -", "#   ")))
        lines[place] = line[2:] if block else line
    text = "\n".join(lines)
    assert set(yaml.safe_load(text)) == set(names)
    Path("all.yaml").write_text(text)
    assert plora_cl.load_settings("all.yaml") == plora_cl.load_settings(experiment_name="reviews")


def test_every_setting_is_explained_in_lines_of_a_hundred_characters() -> None:
    assert main(["init", "reviews.yaml"]) == 0
    text = Path("reviews.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.replace("#", " ").split())
    for field in setting_fields().model_fields.values():
        assert " ".join((field.description or "").split()) in words


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_is_written_out(preset: str) -> None:
    assert main(["init", "first.yaml", "--preset", preset]) == 0
    expected = plora_cl.load_settings(preset=preset, experiment_name="first")
    assert plora_cl.load_settings("first.yaml") == expected


def test_an_existing_file_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("epochs: 7\n")
    Path("link.yaml").symlink_to("nowhere.yaml")
    for name in ("mine.yaml", "link.yaml"):
        assert main(["init", name]) == 2
        assert f"{name} exists; remove it, or name another file" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == "epochs: 7\n"
    assert not Path("nowhere.yaml").exists()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["init", "no/where/a.yaml"], "cannot write no/where/a.yaml: No such file or directory"),
        (["init", "train.csv"], "train.csv: not a YAML file; expected, for instance"),
        (["init", "a.yaml", "--preset", "quickstrat"], "did you mean quickstart?"),
        (["settings", "learnin_rate"], "unknown setting; did you mean learning_rate?"),
        (["settings", "epochs", "--schema"], "--schema has every setting; leave the names out"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert text in line
    assert not Path("a.yaml").exists()


def test_settings_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    out = capsys.readouterr().out
    for name, field in setting_fields().model_fields.items():
        assert f"\n{name}: " in f"\n{out}"
        assert str(field.description) in out
    assert main(["settings", "precision", "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out).values()
    assert about["enum"] == ["fp32", "bf16", "fp16"]
    assert (about["default"], about["resume"]) == ("fp32", "trajectory")


VALUES: list[dict[str, Any]] = [
    {},
    {"tasks": "plora5"},
    {"tasks": ["data/news", {"name": "mails", "path": "data/mails", "text_column": ["a", "b"]}]},
    {"checkpoint_disk_budget": "500 MB", "cache_dir": None},
    {"learning_rate": 0},
    {"learning_rate": -1.0},
    {"router_abstain": 1},
    {"router_abstain": 0.5},
    {"epochs": 0},
    {"epochs": True},
    {"epochs": 2.5},
    {"precision": "fp8"},
    {"use_ewc": "yes"},
    {"sede": 1},
    {"tasks": [{"path": "data/mails", "text_column": []}]},
    {"tasks": [3]},
    {"replay_prompts": {"news": ["About {label}:"]}, "use_replay": True},
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_the_schema_accepts_what_training_accepts(values: dict[str, Any]) -> None:
    try:
        plora_cl.load_settings(**values)
    except SettingsError:
        assert not accepted(values)
    else:
        assert accepted(values)


def test_the_schema_accepts_every_record_of_a_run() -> None:
    jsonschema.Draft202012Validator.check_schema(settings_schema())
    for preset in preset_names():
        settings = plora_cl.load_settings(preset=preset)
        assert accepted(settings.model_dump(mode="json"))


def test_the_published_schema_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--schema"]) == 0
    assert capsys.readouterr().out == PUBLISHED.read_text(encoding="utf-8")
