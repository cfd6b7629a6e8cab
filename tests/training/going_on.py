"""Runs that are stopped and go on under other circumstances."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit

CUT = 13  # in the second task; the newest checkpoint then is of step 12
DONE_0 = "checkpoint_task0_epoch1_batch4.pt"


class Listener(Reporter):
    def __init__(self, cut: int = 0) -> None:
        self.messages: list[str] = []
        self.activities: list[str] = []
        self._left = cut

    def message(self, text: str, /) -> None:
        self.messages.append(text)

    def activity(self, unit: Unit, /) -> None:
        if unit.done == unit.total:
            self.activities.append(unit.what)

    def step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt

    def changes(self, impact: str) -> set[str]:
        """Return the keys of the differences of one class that were shown."""
        lines = [text for text in self.messages if text.startswith(f"{impact}: ")]
        assert all(" -> " in line for line in lines)
        return {line.split(": ")[1] for line in lines}


def train(
    settings: dict[str, Any], folder: Path, *, accept: bool = False, **changes: Any
) -> tuple[Path, Listener]:
    """Start or go on in ``folder``; return the experiment, and what was shown."""
    listener = Listener()
    resume = changes.pop("resume", "auto")
    trainer = CLTrainer(reporter=listener, **{**settings, "experiment_dir": str(folder), **changes})
    trainer.train_sequence(resume=resume, accept_changes=accept)
    return trainer.folder, listener


def cut(settings: dict[str, Any], folder: Path, *, after: int = CUT, **changes: Any) -> Path:
    trainer = CLTrainer(
        reporter=Listener(after), **{**settings, "experiment_dir": str(folder), **changes}
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train_sequence()
    return trainer.folder


def refusal(settings: dict[str, Any], folder: Path, *, accept: bool = False, **changes: Any) -> str:
    """Return why going on is refused; nothing may have changed."""
    log = folder / "run" / "results" / "run_log.jsonl"
    before = log.read_bytes()
    with pytest.raises(IncompatibleCheckpointError) as caught:
        train(settings, folder, accept=accept, **changes)
    assert log.read_bytes() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def events(experiment: Path, kind: str) -> list[dict[str, Any]]:
    text = (experiment / "results" / "run_log.jsonl").read_text()
    return [r for r in map(json.loads, text.splitlines()) if r["event"] == kind]


def newest(experiment: Path) -> Snapshot:
    store = CheckpointStore(experiment / "checkpoints")
    return decode(store.read(store.entries()[-1]))


def rewrite(file: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


def copied_tasks(settings: dict[str, Any], folder: Path) -> list[str]:
    """Return copies of the tasks, free to be changed."""
    for task in settings["tasks"]:
        shutil.copytree(task, folder / Path(task).name)
    return [str(folder / Path(task).name) for task in settings["tasks"]]


def copied_encoder(settings: dict[str, Any], folder: Path) -> Path:
    return Path(shutil.copytree(settings["model_name"], folder / "encoder"))
