"""The task source of docs/tasks.md, as an installed package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.test_extensions import install
from plora_cl.extensions import SOURCES

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


def train(site: Path, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "plora_cl.cli.train.command", *argv],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(120)
def test_its_tasks_are_learned_and_found_again_from_another_folder(
    site: Path, config: Path, tmp_path: Path
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
    site: Path, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "data/first/test.txt").unlink()
    done = train(site, tmp_path, "--config", str(config))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == ("Error: task 'first': there is no file data/first/test.txt; add it\n")


def test_without_the_package_its_entry_is_an_unknown_task(config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = train(tmp_path / "empty", tmp_path, "--config", str(config))
    assert done.returncode == 2
    assert "tasks.1.tabs: unknown part of a task; there are name, path, hub" in done.stderr
