"""What a `CheckpointManager` refuses or reports, rather than save what no run could use."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint.components import Holder
from plora_cl.checkpoint import (
    CheckpointError,
    CheckpointManager,
    IncompatibleCheckpointError,
    Stateful,
    load_checkpoint,
)
from plora_cl.checkpoint.snapshot import committer
from plora_cl.checkpoint.store.space import shortage
from plora_cl.state import StateDict


class Reluctant(Holder):
    """A component that refuses every state while `is_unwilling`."""

    is_unwilling = False

    def load_state_dict(self, state: StateDict, /) -> None:
        if self.is_unwilling:
            raise ValueError("not now")
        super().load_state_dict(state)


@pytest.mark.parametrize("place", ["the same folder", "an empty folder"])
def test_components_that_a_resume_has_restored_in_part_are_not_saved(
    tmp_path: Path, place: str
) -> None:
    first, second = Holder(0), Reluctant(0)
    parts: dict[str, Stateful] = {"first": first, "second": second}
    with CheckpointManager(tmp_path / "run", parts, keep_last=9) as checkpoints:
        first.state = second.state = 1
        checkpoints.save(1)
        first.state = second.state = 3
        path = checkpoints.save(3)
    folder = tmp_path / ("run" if place == "the same folder" else "other")
    with CheckpointManager(folder, parts) as checkpoints:
        checkpoints.resume()
        first.state = second.state = 7
        second.is_unwilling = True
        with pytest.raises(IncompatibleCheckpointError, match="not now"):
            checkpoints.resume(path)
        with pytest.raises(CheckpointError, match=r"last resume\(\) failed when some components"):
            checkpoints.save(8)
        second.is_unwilling = False
        if folder == tmp_path / "other":
            with pytest.raises(CheckpointError, match=r"last resume\(\) failed"):
                checkpoints.resume()  # there is nothing that it could restore
        assert checkpoints.resume(path) == 3
        checkpoints.save(4)
    assert load_checkpoint(folder).snapshot.cursor["step"] == 4


def save_twice(checkpoints: CheckpointManager) -> None:
    checkpoints.save(1)
    while any(thread.name == "checkpoint-writer" for thread in threading.enumerate()):
        time.sleep(0.01)
    checkpoints.save(2)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("state", [1 << 3000, "\udc80"], ids=["long integer", "half a character"])
def test_a_state_that_no_checkpoint_can_hold_is_raised_by_the_next_save(
    tmp_path: Path, state: Any, background: bool
) -> None:
    part = Holder(state)
    with CheckpointManager(tmp_path, {"part": part}, background=background) as checkpoints:
        with pytest.raises(CheckpointError, match=r"no checkpoint .*state at '/part/value'"):
            save_twice(checkpoints)
        part.state = 1
        checkpoints.save(3)
    assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 3


def test_a_manager_is_closed_by_atexit_with_its_constants_verified(tmp_path: Path) -> None:
    code = (
        "import atexit, sys, torch\n"
        "from plora_cl.checkpoint import CheckpointManager\n"
        "weight = torch.zeros(3)\n"
        "constants = {'base': {'weight': weight}}\n"
        "part = torch.nn.Linear(1, 1)\n"
        "manager = CheckpointManager(sys.argv[1], {'part': part}, constants=constants)\n"
        "atexit.register(manager.close)\n"
        "manager.save(1)\n"
        "manager.flush()\n"
        "manager.save(2)\n"
        "if sys.argv[2:]: weight.data += 1\n"
    )
    for arguments, wanted in (["a"], ""), (["b", "write"], "were written to: base"):
        folder, *rest = arguments
        command = [sys.executable, "-c", code, str(tmp_path / folder), *rest]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "RuntimeError" not in done.stderr
        assert wanted in done.stderr
        assert load_checkpoint(tmp_path / folder).snapshot.cursor["step"] == 2


@pytest.mark.parametrize("first_call", ["resume", "save"])
def test_the_machine_is_recorded_as_it_is_when_the_run_begins(
    tmp_path: Path, first_call: str
) -> None:
    threads = torch.get_num_threads()
    try:
        with CheckpointManager(tmp_path, {"part": Holder(1)}) as checkpoints:
            torch.set_num_threads(threads + 1)
            if first_call == "resume":
                checkpoints.resume()
            path = checkpoints.save(1)
        assert load_checkpoint(path).snapshot.facts.environment["threads"] == threads + 1
        with CheckpointManager(tmp_path, {"part": Holder(1)}) as checkpoints:
            torch.set_num_threads(threads + 2)
            with pytest.raises(IncompatibleCheckpointError, match=r"environment\.threads"):
                checkpoints.resume()
    finally:
        torch.set_num_threads(threads)


def test_a_disk_that_becomes_nearly_full_is_reported_each_time_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = [10**12]
    monkeypatch.setattr(
        committer, "shortage", lambda *a, **k: shortage(*a, **k, free_bytes=lambda _: free[0])
    )
    said = []
    with CheckpointManager(tmp_path, {"part": Holder(1)}) as checkpoints:
        for step, free[0] in enumerate([10**12, 10, 10, 10, 10**12, 10], start=1):
            checkpoints.save(step)
            checkpoints.flush()
            said.append(caplog.text.count("10 bytes are free"))
    assert said == [0, 1, 1, 1, 1, 2]
