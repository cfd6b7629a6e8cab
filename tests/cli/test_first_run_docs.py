"""The commands on the page about a first run do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import tiny
from plora_cl.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "first-run.md"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_page_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLORA_CL_CACHE", str(tmp_path / "cache"))
    tiny.make_encoder(Path("encoder"))
    tiny.make_tasks(Path("tasks"))
    for line in commands():
        _, *argv = shlex.split(line, comments=True)
        try:
            assert main(argv) == 0, line
        except SystemExit as end:
            assert end.code == 0, line  # noqa: PT017 - of --help
        assert capsys.readouterr().out
        if argv[:2] == ["init", "reviews.yaml"]:
            text = Path("reviews.yaml").read_text()
            tasks = re.sub(r"(?m)^tasks:\n(- .*\n)+", "tasks: [tasks/animals, tasks/food]\n", text)
            Path("reviews.yaml").write_text(tasks.replace("distilbert-base-uncased", "encoder"))
