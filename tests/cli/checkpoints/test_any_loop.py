"""The tools over the folder of a loop that is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoint.components import Learner
from cli.checkpoints.calls import Calls
from plora_cl.checkpoint import CheckpointManager
from plora_cl.cli.main import main


class Plain(dict[str, Any]):
    """A component whose state is what it holds."""

    def state_dict(self) -> dict[str, Any]:
        return {**self}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.update(state)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    learner = Learner()
    components = learner.components()
    del components["random"]
    with CheckpointManager(tmp_path / "loop", components, identity={"lr": 0.1}) as manager:
        for step in range(manager.resume(), 3):
            learner.step()
            manager.save(step + 1, loss=0.5)
    return tmp_path / "loop"


@pytest.fixture
def calls(capsys: pytest.CaptureFixture[str]) -> Calls:
    return Calls(capsys)


def test_list_verify_inspect_and_diff_work_without_settings(
    folder: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = calls.json("list", str(folder))["checkpoints"]
    assert [row["cursor"]["step"] for row in rows] == [2, 3]
    assert calls("list", str(folder)) == 0
    assert "after 3 steps" in calls.out
    assert "task 1" not in calls.out
    assert calls("verify", str(folder)) == 0
    document = calls.json("inspect", str(folder))
    assert document["identity"] == {"lr": 0.1}
    assert {"model", "optimizer", "scheduler", "random"} == document["components"].keys()
    assert calls("inspect", str(folder)) == 0
    assert "after 3 steps" in calls.out
    first, last = (str(folder / "checkpoints" / row["name"]) for row in rows)
    assert calls("diff", first, last) == 1
    assert "after 2 steps" in calls.out


def test_pins_and_collection_of_garbage_work_without_settings(folder: Path, calls: Calls) -> None:
    for command in ("pin", "unpin", "gc"):
        assert calls(command, str(folder)) == 0, calls.err


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("scores", ({"best": 0.5}, {"best": 0.9})),
        ("scores", ({"cells": [1.0]}, {"cells": [2.0]})),
        ("costs", ({"total": 1.0}, {"total": 2.0})),
        ("cursor", ({"row": 1}, {"row": 2})),
    ],
)
def test_a_component_may_have_the_name_of_one_of_ours(
    tmp_path: Path, calls: Calls, name: str, states: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    for place, state in enumerate(states):
        own = {name: Plain(state)}
        with CheckpointManager(tmp_path / str(place), own) as manager:
            manager.save(manager.resume() + 1)
    first, second = (str(tmp_path / str(place)) for place in range(2))
    assert calls("inspect", first) == 0, calls.err
    document = calls.json("diff", first, second, code=1)
    assert [change["name"].partition(":")[0] for change in document["values"]] == [name]


@pytest.mark.parametrize("command", ["fork", "export"])
def test_what_needs_settings_says_so(folder: Path, calls: Calls, command: str) -> None:
    target = folder.parent / "new"
    where = [str(target)] if command == "fork" else ["--out", str(target)]
    assert calls(command, str(folder), *where) == 2
    assert "has no settings: a program of its own saved it" in calls.err
    assert len(calls.err.splitlines()) == 1
    assert not target.exists()


def test_train_refuses_to_resume_what_has_no_settings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = folder / "checkpoints" / "checkpoint_task0_epoch0_batch2.pt"
    place = ["--experiment-dir", str(folder.parent), "--experiment-name", folder.name]
    for resume in ([], ["auto"], [str(last)]):
        assert main(["train", *place, "--resume", *resume]) == 2
        shown = capsys.readouterr().err
        assert "has no settings: a program of its own saved it" in shown
        assert len(shown.splitlines()) == 1
