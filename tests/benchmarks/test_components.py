"""Every figure of docs/results.md is one of the runs that stand beside it."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest

from components import tables
from plora_cl.cli.study.command import study_parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["eight-runs", "defaults"])
def test_the_tables_are_those_of_the_runs(name: str) -> None:
    runs = ROOT / "docs" / "results" / f"{name}.csv"
    for table in tables(runs).split("\n\n"):
        assert table in PAGE


def test_another_accuracy_of_one_run_changes_the_tables(tmp_path: Path) -> None:
    runs = ROOT / "docs" / "results" / "defaults.csv"
    rows = list(csv.DictReader(runs.read_text(encoding="utf-8").splitlines()))
    rows[0]["average_accuracy"] = "0.1"
    changed = tmp_path / "runs.csv"
    with changed.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert tables(changed).split("\n\n")[0] not in PAGE


def test_the_commands_are_understood() -> None:
    block = PAGE.partition("```bash\n")[2].partition("```")[0]
    for line in block.splitlines():
        words = shlex.split(line)
        if words[0] == "plora-cl":
            assert words[1] == "study"
            study_parser().parse_args(words[2:])
            assert (ROOT / words[2]).is_file()
        else:
            assert words[:3] == ["uv", "run", "python"]
            assert (ROOT / words[3]).is_file()
