"""The task source of docs/tasks.md, as an installed package."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.test_extensions import install
from plora_cl.data.sources.added import AddedSource
from plora_cl.data.sources.entry import Declared
from plora_cl.errors import DataError
from plora_cl.extensions import SOURCES
from warm import PLORA_CL, Interpreter

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder of packages that has the one of the page."""
    text = PAGE.read_text(encoding="utf-8")
    code, declared = (
        re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for language in ("python", "toml")
    )
    assert code is not None
    assert declared is not None
    entry_point = declared[1].splitlines()[1].replace('"', "")
    return install(tmp_path / "site", code[1], entry_point, SOURCES)


@pytest.fixture
def config(settings: dict[str, Any], tmp_path: Path) -> Path:
    """Write tasks in tab-separated files, and settings that name them; return these."""
    for name, folder in zip(("first", "second"), settings["tasks"], strict=False):
        (tmp_path / "data" / name).mkdir(parents=True)
        for split in ("train", "test"):
            rows = map(json.loads, (Path(folder) / f"{split}.jsonl").read_text().splitlines())
            lines = [f"{row['label']}\t{row['text']}\n" for row in rows]
            (tmp_path / "data" / name / f"{split}.txt").write_text("".join(lines))
    tasks = ["tabs:data/first", {"tabs": "data/second", "name": "inbox"}]
    file = tmp_path / "c.yaml"
    place = {"tasks": tasks, "experiment_dir": str(tmp_path), "epochs": 1}
    file.write_text(yaml.safe_dump({**settings, **place}))
    return file


Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train(warm: Interpreter) -> Train:
    """Return ``plora-cl train`` with the packages of a site, in a folder."""

    def train(site: Path, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
        return warm.run(PLORA_CL, "train", *argv, cwd=folder, path=[site])

    return train


@pytest.mark.timeout(120)
def test_its_tasks_are_learned_and_found_again_from_another_folder(
    site: Path, config: Path, tmp_path: Path, train: Train
) -> None:
    done = train(site, tmp_path, "--config", str(config))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run/results/final_results.json").read_text())
    assert [task["name"] for task in results["tasks"]] == ["first", "inbox"]
    record = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert record["tasks"] == [
        f"tabs:{tmp_path}/data/first",
        {"name": "inbox", "tabs": f"{tmp_path}/data/second"},
    ]
    again = train(site, site, "--config", str(tmp_path / "run/config.yaml"), "--resume")
    assert "all 2 tasks are already learned" in again.stdout, again.stderr


def test_a_task_that_is_not_there_is_refused_before_anything_is_loaded(
    site: Path, config: Path, tmp_path: Path, train: Train
) -> None:
    (tmp_path / "data/first/test.txt").unlink()
    done = train(site, tmp_path, "--config", str(config))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == ("Error: task 'first': there is no file data/first/test.txt; add it\n")


def test_without_the_package_its_entry_is_an_unknown_task(
    config: Path, tmp_path: Path, train: Train
) -> None:
    (tmp_path / "empty").mkdir()
    done = train(tmp_path / "empty", tmp_path, "--config", str(config))
    assert done.returncode == 2
    assert "tasks.1.tabs: unknown part of a task; there are name, path, hub" in done.stderr


BROKEN = """
from plora_cl.data.sources.base import Row, TaskSource

class Broken(TaskSource):
    def __init__(self, declared):
        self._name = declared.name
    @property
    def name(self):
        return self._name
    def splits(self):
        return ("train", "test")
    def rows(self, split):
        for number in range(8):
            yield Row(number + 1, f"text {number}", str(number % 2))
"""
ROW = 'Row(number + 1, f"text {number}", str(number % 2))'


@pytest.mark.parametrize(
    ("correct", "broken", "reason"),
    [
        ('"train", "test"', '"train", "dev", "test"', "splits() returned ('train', 'dev', 'test')"),
        ('"train", "test"', '"train",', "splits() returned ('train',); expected train and test"),
        ('return ("train", "test")', "return 1 / 0", "splits(): ZeroDivisionError: division by"),
        ("str(number % 2)", "number % 2", "the label of row 1 is 0, a int; expected text"),
        ('f"text {number}"', '" "', "rows('train'): the text of row 1 is blank; fill it in"),
        ('f"text {number}"', '"\\ud800"', "the text of row 1 has '\\ud800', half of a surrogate"),
        (ROW, "('text', 'label')", "rows('train'): item 1 is ('text', 'label'); expected a plora"),
        ("for number", "raise KeyError('boom')\n        for number", "KeyError: 'boom'"),
        ("for number", "raise SystemExit(0)\n        for number", "rows('train'): SystemExit: 0"),
        ("self._name = ", "raise SystemExit  # ", "cannot be opened: SystemExit"),
        ("self._name = ", "raise OSError('no server')  # ", "cannot be opened: OSError: no server"),
        ("return self._name", "return 'another'", "has the name 'another'; expected the one in"),
        ("(TaskSource)", "", "has no require_there, place, content_digest, class_order; expected"),
        (
            "def rows",
            "def class_order(self): return (0, 1)\n    def rows",
            "class_order() returned",
        ),
    ],
)
def test_what_a_source_does_wrong_is_told_with_the_package(
    correct: str, broken: str, reason: str
) -> None:
    assert correct in BROKEN
    module: dict[str, Any] = {}
    exec(BROKEN.replace(correct, broken), module)
    with pytest.raises(DataError) as caught:
        AddedSource.opened(module["Broken"], "package mine", Declared("here", "x")).content_digest()
    assert str(caught.value).startswith("task 'here': package mine: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_without_mistakes_has_the_digest_that_it_had_by_itself() -> None:
    module: dict[str, Any] = {}
    exec(BROKEN, module)
    declared = Declared("here", "x")
    plain, checked = module["Broken"](declared), AddedSource.opened(module["Broken"], "", declared)
    assert checked.content_digest() == plain.content_digest()
    assert list(checked.rows("test")) == list(plain.rows("test"))


def test_what_a_package_raises_is_one_line_of_the_command(
    settings: dict[str, Any], tmp_path: Path, train: Train
) -> None:
    code = BROKEN.replace("for number", "raise KeyError('boom')\n        for number")
    install(tmp_path / "site", code, "db = broken:Broken", SOURCES)
    file = tmp_path / "c.yaml"
    place = {"tasks": ["db:here"], "experiment_dir": str(tmp_path)}
    file.write_text(yaml.safe_dump({**settings, **place}))
    done = train(tmp_path / "site", tmp_path, "--config", str(file), "--quiet")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "Error: task 'here': package cl-mine, entry point plora_cl.sources: db = broken:Broken: "
        "rows('train'): KeyError: 'boom'"
    )
