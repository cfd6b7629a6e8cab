"""The commands of docs/report.md, as written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from plora_cl.cli.main import main
from plora_cl.cli.visualize import main as visualize
from plora_cl.study.file import read_study
from plora_cl.study.plan import planned_runs
from report.conftest import Page, Place
from study.conftest import finish
from study.conftest import write as write_study

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "report.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]


def test_every_command_runs(
    place: Place, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "c")):
        shutil.copytree(finished, tmp_path / "experiments" / name)
        record = tmp_path / "experiments" / name / "config.yaml"
        record.write_text(yaml.safe_dump({**yaml.safe_load(record.read_text()), "seed": seed}))
    write_study(tmp_path / "eight-runs.yaml")
    for run in planned_runs(read_study(tmp_path / "eight-runs.yaml"), "eight-runs.yaml"):
        finish(run, f1_matrix=[[0.8] * 2] * 2, untrained_accuracy=[0.5] * 2)
    first, *commands = [shlex.split(command) for command in COMMANDS]
    assert first == ["pip", "install", "plora-cl[report]"]
    for program, *arguments in commands:
        if program == "plora-cl":
            assert main(arguments) == 0
        else:
            assert [program, *arguments[:2]] == ["python", "-m", "plora_cl.cli.visualize"]
            assert visualize(arguments[2:]) == 0
    pages = [*tmp_path.glob("*/report.html"), *tmp_path.glob("experiments/*/report/report.html")]
    assert len(pages) == len(commands) == 4
    assert all(Page(page).all("svg") for page in pages)


def test_the_pictures_are_small() -> None:
    pictures = re.findall(r"\]\((images/[^)]+)\)", TEXT)
    assert len(pictures) == 2
    assert all((DOCS / picture).stat().st_size < 150_000 for picture in pictures)
