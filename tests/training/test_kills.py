"""SIGKILL at random instants of real runs, in chains, until each run is finished."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.evidence import evidence

KILLS = int(os.environ.get("PLORA_CL_KILLS", "6"))
"""Set it to hundreds for a long trial; `-s` prints how many were survived."""


class Runs:
    """Starts runs in a process that has everything imported already.

    Args:
        modules: To import, too; found in ``folder``.
        folder: The working directory.
    """

    def __init__(self, modules: Sequence[str] = (), folder: Path | None = None) -> None:
        script = Path(__file__).with_name("kill_server.py")
        self._server = subprocess.Popen(
            [sys.executable, str(script), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def train(
        self,
        argv: list[str],
        output: Path,
        *,
        kill_after: float | None = None,
        kill_at: int | None = None,
        script: str | None = None,
    ) -> int:
        """Run to the end, or kill after so many seconds or changes; return the exit status.

        With ``script`` it is what runs in place of the command line.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "argv": argv,
            "output": str(output),
            "kill_after": kill_after,
            "kill_at": kill_at,
            **({} if script is None else {"script": script}),
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.communicate()


@pytest.fixture
def runs() -> Iterator[Runs]:
    runs = Runs()
    yield runs
    runs.close()


def command_line(settings: dict[str, Any], folder: Path) -> list[str]:
    """Return the arguments of a run that starts, or goes on, in ``folder``."""
    folder.mkdir(exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["--config", str(config), "--experiment-dir", str(folder), "--resume", "auto"]


@pytest.mark.fault
@pytest.mark.timeout(240 + 30 * KILLS)
def test_a_run_killed_at_random_instants_ends_like_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any], runs: Runs
) -> None:
    output = tmp_path / "output.txt"
    whole = 0.0
    for reference in ("first", "reference"):  # the first one tokenises
        started = time.monotonic()
        argv = command_line(settings, tmp_path / reference)
        assert runs.train(argv, output, kill_after=None) == 0, output.read_text()
        whole = time.monotonic() - started
    expected = evidence(tmp_path / "reference" / "run")

    generator = random.Random(20)
    killed = chains = 0
    while killed < KILLS:
        chains += 1
        argv = command_line(settings, tmp_path / f"chain{chains}")
        code: int = -signal.SIGKILL
        while code == -signal.SIGKILL:
            code = runs.train(argv, output, kill_after=generator.uniform(0, whole))
            killed += code == -signal.SIGKILL
        assert code == 0, output.read_text()
        assert evidence(tmp_path / f"chain{chains}" / "run") == expected
    print(f"{killed} kills over {chains} chains survived")


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_the_command_line_killed_again_and_again_ends_like_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any], runs: Runs
) -> None:
    output = tmp_path / "output.txt"
    argv = command_line(settings, tmp_path / "reference")
    assert runs.train(argv, output, kill_after=None) == 0, output.read_text()

    argv = command_line(settings, tmp_path / "killed")
    log = tmp_path / "killed" / "run" / "results" / "run_log.jsonl"
    for lines in (2, 14, 31):
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "plora_cl.cli.train.command", *argv],
                stdout=file,
                stderr=file,
            )
        while not log.exists() or log.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, output.read_text()
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert runs.train(argv, output, kill_after=None) == 0, output.read_text()
    assert evidence(tmp_path / "killed" / "run") == evidence(tmp_path / "reference" / "run")
