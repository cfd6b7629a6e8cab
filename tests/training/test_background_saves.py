"""What a background save writes, when it says so, and what happens when the disk refuses."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.disk.filesystem import Filesystem, ReadableBytes
from plora_cl.checkpoint.snapshot import committer
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.checkpoint.snapshot.writer import BackgroundWriter
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.compute.finite import StepResult
from plora_cl.errors import CheckpointError
from plora_cl.state_digest import state_digest
from plora_cl.training.reporting import Reporter, StepReport
from plora_cl.training.run.checkpointer import Checkpointer
from plora_cl.training.run.optimization import Optimization
from plora_cl.training.run.run import Run
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence


class Listener(Reporter):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str, /) -> None:
        self.messages.append(text)


def train(folder: Path, settings: dict[str, Any], **changes: Any) -> Path:
    reporter = changes.pop("reporter", None)
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder), **changes}, reporter=reporter)
    trainer.train_sequence(resume="auto")
    return trainer.folder


def test_what_is_written_is_the_state_at_the_save_although_training_went_on(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_save: dict[str, str] = {}
    late: list[str] = []
    save = Run.save
    write = Filesystem.write
    steps = threading.Semaphore(0)

    def observed_save(run: Run) -> None:
        save(run)
        parts = run.components
        epoch, batch = parts.last_done()
        name = f"checkpoint_task{parts.cursor.task}_epoch{epoch}_batch{batch}.pt"
        live = {k: v.state_dict() for k, v in parts.live().items() if k != "costs"}
        at_save[f"{name} {parts.cursor.phase}"] = state_digest(live)

    def held_write(disk: Filesystem, path: Path, data: ReadableBytes) -> None:
        if path.name.startswith(".") and ".pt." in path.name:
            steps.acquire(timeout=1)  # a step of training, or the end of it, comes first
            snapshot = decode(bytes(data))
            state = {k: v for k, v in snapshot.state.items() if k != "costs"}
            name = path.name.split(".pt.")[0].lstrip(".") + ".pt"
            key = f"{name} {snapshot.cursor['phase']}"
            late.append(key)
            written[key] = state_digest(state)
        write(disk, path, data)

    written: dict[str, str] = {}

    class Steps(Reporter):
        def step(self, *_: object) -> None:
            steps.release()

    monkeypatch.setattr(Run, "save", observed_save)
    monkeypatch.setattr(Filesystem, "write", held_write)
    train(tmp_path, settings, checkpoint_every=1, reporter=Steps())
    assert len(late) > 30
    assert written == at_save


def test_a_copy_that_the_writer_has_not_begun_is_made_before_anything_changes(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evidence(train(tmp_path / "expected", settings, checkpoint_every=1))
    settle = HostStaging.complete

    def never_beside_training(staging: HostStaging) -> None:
        if threading.current_thread() is threading.main_thread():
            settle(staging)

    wait = HostStaging.wait

    def late(staging: HostStaging) -> None:
        time.sleep(0.02)  # training has gone on to the next change, or past it
        wait(staging)
        settle(staging)

    monkeypatch.setattr(HostStaging, "complete", never_beside_training)
    monkeypatch.setattr(HostStaging, "wait", late)
    assert evidence(train(tmp_path / "late", settings, checkpoint_every=1)) == expected


def test_a_loop_that_changes_what_is_not_copied_yet_is_stopped(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Checkpointer.settle
    monkeypatch.setattr(Checkpointer, "settle", lambda self: None)
    monkeypatch.setattr(BackgroundWriter, "submit", lambda self, job, **_: None)
    step = Optimization.step

    def late(optimization: Optimization, *arguments: Any) -> StepResult:
        result = step(optimization, *arguments)
        settle(trainer.run.checkpointer)
        return result

    monkeypatch.setattr(Optimization, "step", late)
    trainer = CLTrainer(**{**settings, "experiment_dir": str(tmp_path), "checkpoint_every": 1})
    with pytest.raises(CheckpointError, match="changed before the save had copied them"):
        trainer.train_sequence()


def test_a_save_that_fails_for_a_reason_of_its_own_raises_and_the_next_ones_work(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CLTrainer(**{**settings, "experiment_dir": str(tmp_path)}).run
    run.components.begin_task()
    go = threading.Event()

    def defective(_: object) -> bytes:
        go.wait(60)
        raise KeyError("a defect")

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(committer, "encode_with_manifest", defective)
            go.clear()
            run.save()
            run.save()  # waits behind it, and is dropped
            go.set()
            with pytest.raises(KeyError, match="a defect"):
                run.checkpointer.flush()
            run.save()
            while any(thread.name == "checkpoint-writer" for thread in threading.enumerate()):
                time.sleep(0.01)
            with pytest.raises(KeyError, match="a defect"):
                run.save()  # told of the one before, and dropped itself
    run.save()
    run.checkpointer.flush()
    assert CheckpointStore(tmp_path / "run" / "checkpoints").entries()


def test_a_save_is_announced_only_when_it_is_durable(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    class Checks(Reporter):
        saved = 0

        def message(self, text: str, /) -> None:
            if text.startswith("Checkpoint saved: "):
                path = Path(text.removeprefix("Checkpoint saved: ").partition(" (")[0])
                store = CheckpointStore(path.parent)
                assert path in [entry.path for entry in store.entries()]
                Checks.saved += 1

    train(tmp_path, settings, checkpoint_every=1, reporter=Checks())
    assert Checks.saved >= 36


def test_writing_in_place_gives_the_same_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    one = train(tmp_path / "one", settings, async_checkpoint=False)
    other = train(tmp_path / "other", settings, async_checkpoint=True)
    assert evidence(one) == evidence(other)


@pytest.mark.fault
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_for_a_while_stops_nothing(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole = train(tmp_path / "whole", settings)
    write = Filesystem.write
    calls = 0

    def refusing(disk: Filesystem, path: Path, data: ReadableBytes) -> None:
        nonlocal calls
        calls += 1
        if 3 < calls < 10:
            raise OSError(number, "refused", str(path))
        write(disk, path, data)

    listener = Listener()
    monkeypatch.setattr(Filesystem, "write", refusing)
    folder = train(tmp_path / "refused", settings, reporter=listener)
    assert evidence(folder)["run_log"] == evidence(whole)["run_log"]
    warnings = [text for text in listener.messages if text.startswith("Warning: no checkpoint")]
    assert warnings
    assert all("bytes" in text and str(folder) in text for text in warnings)
    newest = CheckpointStore(folder / "checkpoints").entries()[-1]
    assert newest.path.name == "checkpoint_task2_epoch1_batch4.pt"
    assert not list((folder / "checkpoints").rglob("*.partial"))


@pytest.mark.fault
def test_a_last_save_that_never_succeeds_is_an_error_and_the_one_before_stays(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Filesystem.write

    def refusing(disk: Filesystem, path: Path, data: ReadableBytes) -> None:
        if "task2" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(disk, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Filesystem, "write", refusing)
        with pytest.raises(CheckpointError, match=r"no checkpoint .*task2.*No space left"):
            train(tmp_path / "refused", settings)
    folder = train(tmp_path / "refused", settings)
    assert evidence(folder) == evidence(train(tmp_path / "whole", settings))


def test_a_disk_budget_bounds_what_is_kept_of_the_task_in_training(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    kept: list[int] = []

    class Counts(Reporter):
        def step(self, report: StepReport, /) -> None:
            folder = tmp_path / "run" / "checkpoints"
            kept.append(len(list(folder.glob(f"checkpoint_task{report.task}_*"))))

    changes = {"checkpoint_every": 1, "async_checkpoint": False}
    train(tmp_path, settings, **changes, checkpoint_disk_budget=1, reporter=Counts())
    assert max(kept) == 1
    kept.clear()
    (tmp_path / "run").rename(tmp_path / "bounded")
    train(tmp_path, settings, **changes, reporter=Counts())
    assert max(kept) == 3


def test_a_disk_that_will_not_hold_the_next_saves_is_told_of_in_advance(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()

    class Full:
        f_bavail, f_frsize = 7, 1

    monkeypatch.setattr("os.statvfs", lambda path: Full)
    train(tmp_path, settings, reporter=listener)
    warnings = [text for text in listener.messages if "7 bytes are free" in text]
    assert len(warnings) == 3
    assert str(tmp_path / "run" / "checkpoints") in warnings[0]
