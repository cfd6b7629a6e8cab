"""A lock is held as long as somebody works, and not an instant longer."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from checkpoint.test_lock import another_holder
from plora_cl.checkpoint.disk import lock, lock_file
from plora_cl.checkpoint.disk.lock import ExperimentLock, holder_of
from plora_cl.errors import CheckpointError, ExperimentLockedError, ExperimentMovedError
from tmpfs import tmpfs

_HOLDING = ("__enter__", "__exit__", "release", "is_open", "close")


class InterruptsAt:
    """Raises KeyboardInterrupt at the n-th line that taking the lock runs on this thread."""

    def __init__(self, line: int) -> None:
        self._left = line
        self._files = {module.__file__ for module in (lock, lock_file)}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> InterruptsAt | None:
        code = frame.f_code
        if code.co_filename not in self._files or code.co_name in _HOLDING:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_line_leaves_no_lock_behind(tmp_path: Path) -> None:
    shown: list[KeyboardInterrupt] = []  # a notebook keeps the traceback, and with it all frames
    for line in range(1, 1000):
        before = sys.gettrace()
        sys.settrace(InterruptsAt(line))
        try:
            with ExperimentLock.acquire(tmp_path / "run"):
                pass
        except KeyboardInterrupt as error:
            shown.append(error)
        else:
            break
        finally:
            sys.settrace(before)
        with ExperimentLock.acquire(tmp_path / "run"):
            assert holder_of(tmp_path / "run")
    assert len(shown) > 30


def test_a_lock_that_was_dropped_is_free(tmp_path: Path) -> None:
    taken = ExperimentLock.acquire(tmp_path)
    assert holder_of(tmp_path)
    del taken
    assert not holder_of(tmp_path)
    ExperimentLock.acquire(tmp_path).release()


def test_a_lock_whose_file_cannot_be_removed_is_free_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch, ExperimentLock.acquire(tmp_path):
        patch.setattr(Path, "unlink", refused)
    assert (tmp_path / ".lock").exists()
    assert not holder_of(tmp_path)
    ExperimentLock.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_tells_whether_it_still_guards_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ExperimentLock.acquire(run) as held:
        held.require_held()
        run.rename(tmp_path / "old")
        with pytest.raises(ExperimentMovedError, match="was moved, removed or replaced"):
            held.require_held()
        with ExperimentLock.acquire(run) as other:
            with pytest.raises(ExperimentMovedError):
                held.filesystem.remove(run / ".lock")
            other.require_held()
        (tmp_path / "old").rename(run)
        held.require_held()
    with pytest.raises(ExperimentMovedError, match="does not hold the lock"):
        held.require_held()


def test_a_holder_says_once_that_its_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beaten = threading.Semaphore(0)
    show_life = lock_file.LockFile.show_life

    def counted(file: lock_file.LockFile) -> None:
        show_life(file)
        beaten.release()

    monkeypatch.setattr("plora_cl.checkpoint.disk.lock.HEARTBEAT_SECONDS", 0.001)
    monkeypatch.setattr(lock_file.LockFile, "show_life", counted)
    with ExperimentLock.acquire(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "old")
        for _ in range(5):
            assert beaten.acquire(timeout=60)
    assert [record.getMessage().count("moved or removed") for record in caplog.records] == [1]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs without an inode or a byte left but for one folder."""
    with tmpfs(tmp_path / "disk", "size=64k,nr_inodes=16") as place:
        (place / "run").mkdir()
        yield place


def fill(place: Path, *, inodes: bool) -> None:
    files = [(str(number), 0) for number in range(100)] if inodes else [("filler", 1 << 20)]
    with suppress(OSError):
        for name, size in files:
            (place / name).write_bytes(bytes(size))
    status = os.statvfs(place)
    assert 0 in (status.f_bavail, status.f_favail)


@pytest.mark.fault
@pytest.mark.parametrize("inodes", [True, False])
def test_who_only_removes_needs_no_room_for_the_lock(full_disk: Path, inodes: bool) -> None:
    run = full_disk / "run"
    fill(full_disk, inodes=inodes)
    with pytest.raises(CheckpointError, match="No space left"):
        ExperimentLock.acquire(run)
    with ExperimentLock.acquire(run, only_to_remove=True) as held:
        held.require_held()
        with pytest.raises(ExperimentLockedError):
            ExperimentLock.acquire(run, only_to_remove=True)
        # There is room again, and still nobody else gets in.
        (full_disk / ("0" if inodes else "filler")).unlink()
        with pytest.raises(ExperimentLockedError):
            ExperimentLock.acquire(run)
        held.require_held()
    with ExperimentLock.acquire(run):
        pass
    assert list(run.iterdir()) == []


@pytest.mark.fault
def test_who_only_removes_is_refused_on_a_full_disk_while_another_process_works(
    full_disk: Path,
) -> None:
    with another_holder(full_disk / "run"):
        fill(full_disk, inodes=True)
        with pytest.raises(ExperimentLockedError, match="is in use by process"):
            ExperimentLock.acquire(full_disk / "run", only_to_remove=True)
