"""The commands on the page about looking at runs do what it says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import tiny
from folders.conftest import Answered

PAGE = Path(__file__).parents[2] / "docs" / "looking-at-runs.md"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_page_runs(
    line: str, copy: Path, call: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(copy, copy.with_name("other"))
    monkeypatch.chdir(copy.parents[1])
    split = tiny.make_task(Path("animals"), tiny.TOPICS["animals"], train=4, test=6) / "test.jsonl"
    split.rename("march.jsonl")
    _, *argv = shlex.split(line, comments=True)
    assert call(*[word for word in argv if word != "--watch"]) == 0, call.err
    assert call.out
