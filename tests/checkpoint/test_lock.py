"""One writer per experiment, with real processes."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from plora_cl.checkpoint.disk.lock import ExperimentLock, holder_of, require_free
from plora_cl.checkpoint.disk.lock_holder import STALE_SECONDS, Holder
from plora_cl.cli.exit import REFUSED, exit_code
from plora_cl.errors import CheckpointError, ExperimentLockedError
from plora_cl.training.trainer import CLTrainer


@contextmanager
def another_holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock; it is gone afterwards."""
    script = Path(__file__).with_name("lock_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def leave_record(folder: Path, holder: Holder, *, silent_seconds: float = 0) -> None:
    """Leave what a holder leaves that never released its lock."""
    folder.mkdir(exist_ok=True)
    path = folder / ".lock"
    path.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    last = path.stat().st_mtime - silent_seconds
    os.utime(path, (last, last))


def test_a_second_process_is_refused_and_told_who_where_since_when_and_the_way_out(
    tmp_path: Path,
) -> None:
    with another_holder(tmp_path) as process:
        holder = holder_of(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.host) == (process.pid, socket.gethostname())
        with pytest.raises(ExperimentLockedError) as refused:
            ExperimentLock.acquire(tmp_path)
        message = str(refused.value)
        for part in (str(tmp_path), str(process.pid), holder.host, holder.since, "--experiment-n"):
            assert part in message
        assert "\n" not in message
        assert holder_of(tmp_path)


def test_a_living_holder_whose_record_is_lost_still_keeps_others_out(tmp_path: Path) -> None:
    with another_holder(tmp_path):
        (tmp_path / ".lock").write_bytes(b"")
        assert holder_of(tmp_path)
        with pytest.raises(ExperimentLockedError, match="in use by another process"):
            ExperimentLock.acquire(tmp_path)


def test_training_where_another_process_trains_ends_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = CLTrainer(experiment_dir=tmp_path, experiment_name="run", tasks=["nowhere"])
    with another_holder(tmp_path / "run") as process:
        assert exit_code(lambda: bool(trainer.train_sequence())) == REFUSED
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert f"in use by process {process.pid}" in error
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_two_trainers_in_one_process_do_not_share_a_folder(tmp_path: Path) -> None:
    with ExperimentLock.acquire(tmp_path):
        with pytest.raises(ExperimentLockedError, match="this very process"):
            ExperimentLock.acquire(tmp_path)
        with ExperimentLock.acquire(tmp_path / "another"):
            pass
    ExperimentLock.acquire(tmp_path).release()


def test_a_released_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    lock = ExperimentLock.acquire(tmp_path / "run")
    assert holder_of(tmp_path / "run")
    lock.release()
    lock.release()
    assert not holder_of(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with ExperimentLock.acquire(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_lock_is_released_when_the_run_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ExperimentLock.acquire(tmp_path):
        raise KeyError
    assert not holder_of(tmp_path)


@pytest.mark.fault
def test_the_lock_of_a_killed_process_is_taken_over_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with another_holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (tmp_path / ".lock").exists()
        assert not holder_of(tmp_path)
        with caplog.at_level(logging.WARNING), ExperimentLock.acquire(tmp_path):
            assert f"taking over the lock of process {process.pid}" in caplog.text
            assert "that process is gone" in caplog.text
            holder = holder_of(tmp_path)
            assert holder is not None
            assert holder.pid == os.getpid()


@pytest.mark.fault
def test_a_forked_child_neither_holds_nor_releases_the_lock_of_its_parent(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with ExperimentLock.acquire(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os.write(writing, b"released")
            signal.pause()
            os._exit(0)
        try:
            assert os.read(reading, 8) == b"released"
            assert holder_of(tmp_path)
            lock.release()
            ExperimentLock.acquire(tmp_path).release()  # while the child lives
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            os.close(writing)


def rebooted(holder: Holder) -> Holder:
    return replace(holder, boot_id="0" * 36)


def reused(holder: Holder) -> Holder:
    return replace(holder, process_started=holder.process_started + 1)


def gone(holder: Holder) -> Holder:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(holder, pid=child.pid)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (rebooted, "rebooted"),
        (reused, "its id belongs to another one"),
        (gone, "that process is gone"),
    ],
)
def test_a_record_of_a_process_that_cannot_be_alive_is_taken_over(
    tmp_path: Path,
    change: Callable[[Holder], Holder],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave_record(tmp_path, change(Holder.this_process()))
    assert not holder_of(tmp_path)
    with caplog.at_level(logging.WARNING), ExperimentLock.acquire(tmp_path):
        assert reason in caplog.text


def test_a_process_on_another_machine_counts_as_alive_until_it_is_silent_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = replace(Holder.this_process(), host="elsewhere")
    leave_record(tmp_path, elsewhere, silent_seconds=STALE_SECONDS - 60)
    assert holder_of(tmp_path)
    with pytest.raises(ExperimentLockedError, match=r"on elsewhere since .* 10 minutes after"):
        ExperimentLock.acquire(tmp_path)
    leave_record(tmp_path, elsewhere, silent_seconds=STALE_SECONDS + 60)
    assert not holder_of(tmp_path)
    with caplog.at_level(logging.WARNING), ExperimentLock.acquire(tmp_path):
        assert "no sign of life" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plora_cl.checkpoint.disk.lock.HEARTBEAT_SECONDS", 0.01)
    with ExperimentLock.acquire(tmp_path):
        path = tmp_path / ".lock"
        os.utime(path, (1_000_000_000, 1_000_000_000))
        until = time.monotonic() + 10
        while path.stat().st_mtime == 1_000_000_000:
            assert time.monotonic() < until, "the holder is silent"
            time.sleep(0.001)


def test_a_living_holder_is_refused_by_its_record_where_the_disk_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with another_holder(tmp_path) as process:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(ExperimentLockedError, match=f"process {process.pid}"):
            ExperimentLock.acquire(tmp_path)
        process.kill()
        process.wait()
        with ExperimentLock.acquire(tmp_path):
            assert holder_of(tmp_path)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"host": 1}', "[" * 4000])
def test_a_record_that_is_torn_or_none_holds_nobody_back(tmp_path: Path, record: str) -> None:
    (tmp_path / ".lock").write_text(record, encoding="utf-8")
    assert not holder_of(tmp_path)
    ExperimentLock.acquire(tmp_path).release()


def test_looking_at_a_folder_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    assert not holder_of(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_the_lock_keeps_no_folder_that_was_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EFBIG, "File too large")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(CheckpointError, match="File too large"):
            ExperimentLock.acquire(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with ExperimentLock.acquire(tmp_path / "run"):
        pass


def test_a_holder_that_has_not_written_its_record_is_another_process(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ExperimentLockedError, match="is in use by another process; wait"):
            require_free(tmp_path)
