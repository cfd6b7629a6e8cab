"""``plora-cl status`` says where every run in a folder stands, and changes nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from folders.conftest import Answered, unfinished
from plora_cl.folders.standing import State, standing_of

HOLD = """
import sys, time
from pathlib import Path
from plora_cl.checkpoint.disk.lock import ExperimentLock
lock = ExperimentLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock of ``folder``."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def log_step(folder: Path, **changes: Any) -> None:
    (folder / "results").mkdir(exist_ok=True)
    step = {"event": "step", "step": 999, "task": 1, "epoch": 2, "loss": 0.25, **changes}
    with (folder / "results" / "run_log.jsonl").open("a") as file:
        file.write(json.dumps(step) + "\n")


def test_a_finished_run_has_its_published_accuracies(copy: Path) -> None:
    found = standing_of(copy)
    results = json.loads((copy / "results" / "final_results.json").read_text())
    assert (found.state, found.task, found.tasks, found.holder) == (State.FINISHED, 3, 3, None)
    assert list(found.accuracies.values()) == results["accuracy_matrix"][-1]


def test_a_stopped_run_stands_at_its_newest_checkpoint(copy: Path) -> None:
    found = standing_of(unfinished(copy, tasks=2))
    newest = max((copy / "checkpoints").glob("*.pt"), key=lambda path: path.name)
    assert (found.state, found.task, found.tasks, found.name) == (State.STOPPED, 2, 3, "weather")
    assert (found.checkpoint, found.phase, found.epoch, found.epochs) == (newest.name, "done", 4, 4)
    assert found.saved == newest.stat().st_mtime
    assert set(found.accuracies) == {"animals", "weather"}


def test_the_run_log_says_how_far_a_run_is_after_its_checkpoint(copy: Path) -> None:
    log_step(unfinished(copy))
    found = standing_of(copy)
    assert (found.task, found.name, found.epoch, found.phase) == (2, "weather", 3, "train")
    assert (found.step, found.loss) == (999, 0.25)
    assert set(found.accuracies) == {"animals"}


def test_the_holder_of_the_lock_is_alive_or_gone(copy: Path, call: Answered) -> None:
    unfinished(copy)
    with held(copy) as process:
        found = standing_of(copy)
        assert found.state is State.RUNNING
        assert found.holder is not None
        assert found.holder.pid == process.pid
        assert call("status", copy) == 0
        assert f"process {process.pid} on" in call.out
        assert "and is alive" in call.out
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert standing_of(copy).state is State.KILLED
        assert call("status", copy) == 0
        assert "left its lock behind, and is gone; plora-cl train --config" in call.out


def test_a_run_that_has_saved_nothing_yet_is_shown(tmp_path: Path) -> None:
    with held(tmp_path / "new"):
        found = standing_of(tmp_path / "new")
        assert (found.state, found.task, found.checkpoint) == (State.RUNNING, None, None)


def test_runs_of_studies_are_listed_below_their_study(copy: Path, call: Answered) -> None:
    study = copy.parent / "sweep"
    shutil.copytree(copy, study / "ewc-seed1")
    unfinished(Path(shutil.copytree(copy, study / "tuning" / "trial")))
    (study / "plain-seed1").mkdir()
    failure = {"exit_code": 1, "line": "Error: no room"}
    (study / "plain-seed1" / "failure.json").write_text(json.dumps(failure))
    with held(study):  # by the supervisor
        found = call.json("status", copy.parent)["experiments"]
        by_name = {Path(each["folder"]).name: each["state"] for each in found}
        assert by_name == {
            "demo": "finished",
            "ewc-seed1": "finished",
            "plain-seed1": "failed",
            "trial": "stopped",
        }
        assert call("status", copy.parent) == 0
    assert "4 experiments: 2 finished, 1 stopped, 1 failed" in call.out
    assert "sweep: 2 experiments: 1 finished, 1 failed" in call.out
    assert "sweep/plain-seed1: Error: no room" in call.out


def test_a_damaged_experiment_is_a_state_and_hides_no_other(copy: Path, call: Answered) -> None:
    other = unfinished(Path(shutil.copytree(copy, copy.with_name("broken"))))
    for path in (other / "checkpoints").glob("*.pt"):
        path.write_bytes(b"nothing")
    found = call.json("status", copy.parent)["experiments"]
    assert [each["state"] for each in found] == ["unreadable", "finished"]
    assert "damaged" in found[0]["problem"]


def test_it_loads_no_torch_and_changes_nothing(
    copy: Path, loaded_by: Callable[..., tuple[int, str, set[str]]]
) -> None:
    def tree() -> dict[str, tuple[int, int]]:
        found = (path for path in copy.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    unfinished(copy)
    before = tree()
    code, out, heavy = loaded_by("status", copy.parent)
    assert (code, heavy) == (0, set())
    assert "demo" in out
    assert tree() == before


def test_watching_shows_a_change_until_it_is_interrupted(copy: Path) -> None:
    unfinished(copy)
    program = (  # a job in the background of a shell is started with SIGINT ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from plora_cl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "status", str(copy.parent), "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("demo") and "stopped" in line:
                break
        log_step(copy, step=1234)
        for line in process.stdout:
            if "1234" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 0


def test_watching_takes_the_screen_of_a_terminal_and_gives_it_back(copy: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        program = "import sys; from plora_cl.cli.main import main; sys.exit(main(sys.argv[1:]))"
        argv = ["python", "-c", program, "status", str(copy.parent), "--watch", "0.1"]
        os.execve(sys.executable, argv, {**os.environ, "TERM": "xterm"})
    shown = b""
    while b"finished" not in shown:
        shown += os.read(terminal, 65_536)
    os.kill(pid, signal.SIGTERM)
    with suppress(OSError):  # the end of a terminal
        while piece := os.read(terminal, 65_536):
            shown += piece
    assert os.waitpid(pid, 0)[1] == 0
    assert (shown.count(b"\x1b[?1049h"), shown.count(b"\x1b[?1049l")) == (1, 1)
    assert b"demo" in shown.rpartition(b"\x1b[?1049l")[2]  # the last state stays


@pytest.mark.parametrize("columns", [60, 80])
def test_the_table_fits_a_narrow_terminal(
    columns: int, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(copy)
    program = "import sys; from plora_cl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "COLUMNS": str(columns), "FORCE_COLOR": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "status", str(copy.parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    table = [line for line in lines if line.startswith(("experiment ", "demo "))]
    assert len(table) == 2
    assert max(map(len, table)) <= columns


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["no/where"], "no/where has no experiment; expected, for instance, experiments/demo"),
        (["experiments", "--watch", "0"], "--watch takes seconds above 0"),
        (["experiments", "--watch", "--json"], "leave --json out"),
        (["experiments", "--watch", "x"], "invalid float value: 'x'"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], text: str, copy: Path, call: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parents[1])
    assert call("status", *argv) == 2
    assert text in call.error
