"""SIGKILL at random instants of real runs, in chains, until each run is finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.evidence import evidence
from warm import Interpreter, Process

KILLS = int(os.environ.get("PLORA_CL_KILLS", "6"))
"""Set it to hundreds for a long trial; `-s` prints how many were survived."""
TRAIN = "import sys; from plora_cl.cli.train.command import main; sys.exit(main())"


class Runs:
    """Starts runs and kills them.

    Args:
        interpreter: Forks them.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def train(
        self,
        argv: list[str],
        output: Path,
        *,
        kill_after: float | None = None,
        kill_at: int | None = None,
        script: str = TRAIN,
    ) -> int:
        """Run to the end, or kill after so many seconds or changes; return the exit status.

        ``script`` is the code that runs, ``kill_at`` counts its changes of the disk from 0.
        """
        dying = "" if kill_at is None else f"import training.dying as d; d.die_at({kill_at})\n"
        with output.open("w") as file:
            process = self._interpreter.start(dying + script, *argv, stdout=file)
        if process.wait(kill_after) is None:
            process.kill()
        code = process.wait()
        assert code is not None
        return code


@pytest.fixture
def runs(warm: Interpreter) -> Runs:
    return Runs(warm)


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
    tmp_path: Path, settings: dict[str, Any], runs: Runs, warm: Interpreter
) -> None:
    output = tmp_path / "output.txt"
    argv = command_line(settings, tmp_path / "reference")
    assert runs.train(argv, output, kill_after=None) == 0, output.read_text()

    argv = command_line(settings, tmp_path / "killed")
    log = tmp_path / "killed" / "run" / "results" / "run_log.jsonl"
    for lines in (2, 14, 31):
        with output.open("w") as file:
            process: Process | subprocess.Popen[bytes]
            if lines == 14:  # as a user starts it
                command = [sys.executable, "-m", "plora_cl.cli.train.command", *argv]
                process = subprocess.Popen(command, stdout=file, stderr=file)
            else:
                process = warm.start(TRAIN, *argv, stdout=file)
        while not log.exists() or log.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, output.read_text()
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert runs.train(argv, output, kill_after=None) == 0, output.read_text()
    assert evidence(tmp_path / "killed" / "run") == evidence(tmp_path / "reference" / "run")
