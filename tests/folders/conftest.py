from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.conftest import folder, learn
from plora_cl.cli.main import main

__all__ = ["folder", "learn"]

HEAVY = ("torch", "transformers", "peft", "datasets", "safetensors", "sklearn", "scipy")


class Answered:
    """What a command wrote and returned, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out, self.err = "", ""

    def __call__(self, *argv: object) -> int:
        try:
            code = main([str(word) for word in argv])
        except SystemExit as end:
            code = int(str(end.code))
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *argv: object) -> dict[str, Any]:
        assert self(*argv, "--json") == 0, self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def error(self) -> str:
        (line,) = self.err.splitlines()
        assert line.startswith("Error: ")
        return line


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Answered:
    return Answered(capsys)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished experiment, free to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "experiments" / "demo"))


def unfinished(experiment: Path, *, tasks: int = 1) -> Path:
    """Make a finished experiment one that was stopped after ``tasks`` tasks."""
    shutil.rmtree(experiment / "results")
    for path in (experiment / "checkpoints").glob("*.pt"):
        if int(path.name.removeprefix("checkpoint_task")[0]) >= tasks:
            path.unlink()
    return experiment


@pytest.fixture
def loaded_by() -> Callable[..., tuple[int, str, set[str]]]:
    """Run a command in a fresh interpreter; return exit code, stdout and heavy imports."""

    def run(*argv: object) -> tuple[int, str, set[str]]:
        program = (
            "import sys\n"
            "from plora_cl.cli.main import main\n"
            "try:\n"
            "    code = main(sys.argv[1:])\n"
            "except SystemExit as end:\n"
            "    code = end.code\n"
            f"print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
            "sys.exit(code)\n"
        )
        command = [sys.executable, "-c", program, *map(str, argv)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, {*done.stderr.splitlines()[-1].split()}

    return run
