"""Tools whose stdout fails."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from cli.closed_pipe import PLORA_CL, unread
from plora_cl.checkpoint.store.store import CheckpointStore


@pytest.mark.parametrize("command", ["list", "inspect", "verify"])
def test_a_tool_whose_output_nobody_reads_ends_quietly(
    experiment: CheckpointStore, command: str
) -> None:
    assert experiment.entries()
    assert unread("checkpoints", command, "experiments/demo") == (141, "")


def test_a_tool_says_that_its_output_was_not_written(experiment: CheckpointStore) -> None:
    assert experiment.entries()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PLORA_CL, "checkpoints", "list", "experiments/demo"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    reason = os.strerror(errno.ENOSPC)
    assert (done.returncode, done.stderr) == (2, f"Error: stdout cannot be written: {reason}\n")


def test_what_an_encoding_lacks_is_shown_escaped(experiment: CheckpointStore) -> None:
    experiment.directory.parent.rename("Übung")
    done = subprocess.run(
        [*PLORA_CL, "checkpoints", "list", "Übung"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xdcbung" in done.stdout
