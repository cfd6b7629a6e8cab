"""C: real system calls of a real process fail, or kill it, injected by `strace`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faults.scenario import newest_note, older_run, partial_files, save
from plora_cl.checkpoint.store.store import CheckpointStore

TESTS = Path(__file__).parents[1]
REFUSED = 3


def saved_under(injection: str, directory: Path) -> int:
    """Save in a process with ``injection``; return its exit status."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-o", str(directory) + ".trace", "-e", f"inject={injection}"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "faults.saver", str(directory)],
        env={
            **os.environ,
            "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if "PTRACE" in done.stderr:
        pytest.skip(f"tracing is not allowed here: {done.stderr.strip()}")
    assert done.returncode in (0, REFUSED, -9, 137), done.stderr
    return done.returncode


@pytest.mark.fault
@pytest.mark.parametrize(
    ("call", "action"),
    [
        ("fsync", "error=EIO"),
        ("rename", "error=ENOSPC"),
        ("unlink", "error=EIO"),
        pytest.param("fsync", "error=ENOSPC", marks=pytest.mark.slow),
        pytest.param("fsync", "signal=SIGKILL", marks=pytest.mark.slow),
        pytest.param("rename", "signal=SIGKILL", marks=pytest.mark.slow),
        pytest.param("unlink", "signal=SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_a_system_call_that_fails_or_kills_loses_nothing(
    tmp_path: Path, call: str, action: str
) -> None:
    for n in range(1, 100):
        directory = tmp_path / str(n)
        older_run(directory)
        status = saved_under(f"{call}:{action}:when={n}", directory)
        assert newest_note(directory) in ({"new"} if status == 0 else {"old", "new"})
        if status == REFUSED:
            assert not partial_files(directory)
        save(CheckpointStore(directory))
        assert newest_note(directory) == "new"
        assert not partial_files(directory)
        if status == 0:
            assert n > 2
            print(f"{n - 1} times {call} with {action}, 0 checkpoints lost")
            return
    raise AssertionError("the save never ends")
