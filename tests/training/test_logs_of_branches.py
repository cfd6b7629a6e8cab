"""Each checkpoint finds its run log, whichever branch the run is on."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.cli.checkpoints.main import main
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import DONE_0, Listener, cut, events, newest, train

EARLY = "checkpoint_task1_epoch0_batch1.pt"  # of step 12
LATE = "checkpoint_task1_epoch1_batch2.pt"  # of step 18
LEFT = f"{LATE}.branch0"
OTHER: dict[str, Any] = {"learning_rate": 0.02}


class Interrupted(Listener):
    """Stops a run when it says that it has gone back, before it learns anything."""

    def message(self, text: str, /) -> None:
        if text.startswith("Checkpoint loaded!"):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def rewound(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was stopped in its second task, and went on from `EARLY` otherwise."""
    run = cut(settings, tmp_path_factory.mktemp("rewound"), after=19)
    go_on_for(5, settings, run.parent, resume=str(run / "checkpoints" / EARLY), **OTHER)
    return run


@pytest.fixture
def here(rewound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rewound, tmp_path / "here" / "run"))


def go_on_for(
    steps: int, settings: dict[str, Any], folder: Path, *, resume: str, **changes: Any
) -> None:
    listener = Listener(steps) if steps else Interrupted()
    trainer = CLTrainer(reporter=listener, **{**settings, "experiment_dir": str(folder), **changes})
    with pytest.raises(KeyboardInterrupt):
        trainer.train_sequence(resume=resume, accept_changes=True)


def position_in(checkpoint: Path) -> Mapping[str, Any]:
    data = CheckpointStore(checkpoint.parent).read(CheckpointEntry.at(checkpoint))
    return dict(decode(data).state["run_log"])


def holds(experiment: Path, position: Mapping[str, Any]) -> bool:
    log = (experiment / "results" / "run_log.jsonl").read_bytes()
    return hashlib.sha256(log[: position["bytes"]]).hexdigest() == position["sha256"]


def test_a_fork_of_a_retired_checkpoint_has_the_log_of_that_checkpoint(
    settings: dict[str, Any], here: Path, whole: Path, tmp_path: Path
) -> None:
    source, folder = here / "checkpoints" / LEFT, tmp_path / "forked" / "run"
    assert main(["fork", str(source), str(folder)]) == 0
    assert holds(folder, position_in(source))
    train(settings, folder.parent)
    assert (events(folder, "gap"), events(folder, "changed")) == ([], [])
    assert evidence(folder)["run_log"] == evidence(whole)["run_log"]


def test_an_export_of_a_retired_checkpoint_has_the_log_of_that_checkpoint(
    here: Path, tmp_path: Path
) -> None:
    source, file, folder = here / "checkpoints" / LEFT, tmp_path / "one.tar", tmp_path / "imported"
    assert main(["export", str(source), "--out", str(file)]) == 0
    assert main(["import", str(file), str(folder)]) == 0
    position = position_in(source)
    assert (folder / "results" / "run_log.jsonl").stat().st_size == position["bytes"]
    assert holds(folder, position)


def test_a_branch_that_is_stopped_before_its_first_record_has_its_log(
    settings: dict[str, Any], here: Path, whole: Path
) -> None:
    go_on_for(0, settings, here.parent, resume=str(here / "checkpoints" / LEFT))
    assert newest(here).trajectory.branch == 2
    assert holds(here, newest(here).state["run_log"])
    assert main(["gc", str(here), "--retired"]) == 0
    assert [path.name for path in (here / "results").glob("run_log*")] == ["run_log.jsonl"]
    train(settings, here.parent)
    assert [r["step"] for r in events(here, "step")] == list(range(1, 31))
    assert evidence(here)["run_log"] == evidence(whole)["run_log"]


@pytest.mark.fault
def test_gc_leaves_the_log_of_a_run_whose_next_branch_was_killed_before_its_first_checkpoint(
    settings: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = newest(here).state["run_log"]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings, here.parent, resume=str(here / "checkpoints" / LEFT))
    assert not holds(here, position)
    assert main(["gc", str(here), "--retired"]) == 0
    train({**settings, **OTHER}, here.parent)
    assert holds(here, position)
    assert [r["step"] for r in events(here, "step")] == list(range(1, 31))
    assert events(here, "gap") == []


def test_an_abandoned_end_that_is_shown_again_has_its_log_and_the_live_one_stays(
    settings: dict[str, Any], whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "here" / "run"))
    end = CheckpointStore(run / "checkpoints").entries()[-1].path
    go_on_for(5, settings, run.parent, resume=str(end.with_name(DONE_0)), **OTHER)
    live = newest(run).state["run_log"]
    with caplog.at_level(logging.WARNING):
        train(settings, run.parent, resume=f"{end}.branch0")
    assert not [text for text in caplog.messages if "run_log" in text]
    assert evidence(run)["run_log"] == evidence(whole)["run_log"]
    retired = [entry.path for entry in CheckpointStore(run / "checkpoints").retired()]
    newest_left = max(path for path in retired if path.suffix == ".branch1")
    assert position_in(newest_left) == live
    train({**settings, **OTHER}, run.parent, resume=str(newest_left))
    assert holds(run, live)
    assert events(run, "gap") == []
