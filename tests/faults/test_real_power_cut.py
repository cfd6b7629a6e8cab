"""D: the power of a real ext4 file system is cut at every operation of a save."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from faults.scenario import newest_note, older_run, save
from plora_cl.checkpoint.disk.filesystem import Content, Filesystem
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError

FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """An ext4 file system in a file; `cut` stops it as a power cut would."""

    def __init__(self, folder: Path) -> None:
        self._image, self.root = folder / "image", folder / "mounted"
        self.root.mkdir()
        with self._image.open("wb") as image:
            image.truncate(16 << 20)
        self._require("mkfs.ext4", "-q", str(self._image))
        self._mount()

    def _require(self, *command: str) -> None:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"{command[0]} is not installed")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"a loop file cannot be mounted here: {error.stderr.strip()}")

    def _mount(self) -> None:
        self._require("mount", "-o", "loop,commit=300", str(self._image), str(self.root))

    def cut(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def power_up(self) -> None:
        """Mount it again; the journal is replayed."""
        self.unmount()
        self._mount()

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.root)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.unmount()


class CutAt(Filesystem):
    """Cuts the power before the ``n``-th change, counted from 0."""

    def __init__(self, cut: Callable[[], None], n: int) -> None:
        self._cut, self._n = cut, n
        self.changes = 0

    def _change(self) -> None:
        if self.changes == self._n:
            self._cut()
        self.changes += 1

    def write(self, path: Path, data: Content) -> None:
        self._change()
        super().write(path, data)

    def rename(self, source: Path, target: Path) -> None:
        self._change()
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._change()
        super().sync_directory(path)

    def remove(self, path: Path) -> None:
        self._change()
        super().remove(path)


def cut_everywhere(disk: Disk) -> tuple[int, int]:
    """Cut the power at every change of a save, and right after it; return cuts and losses."""
    lost = 0
    for n in range(1000):
        directory = disk.root / str(n)
        older_run(directory)
        filesystem = CutAt(disk.cut, n)
        acknowledged = "old"
        with suppress(CheckpointError):
            save(CheckpointStore(directory, filesystem))
            acknowledged = "new"
        was_cut = filesystem.changes > n
        if not was_cut:
            disk.cut()
        disk.power_up()
        try:
            note = newest_note(directory)
        except CheckpointError:
            note = "damaged"
        lost += note not in ({"old", "new"} if acknowledged == "old" else {"new"})
        if not was_cut:
            return n + 1, lost
    raise AssertionError("the save never ends")


@pytest.mark.fault
def test_no_cut_of_the_power_of_a_real_disk_loses_an_acknowledged_checkpoint(disk: Disk) -> None:
    cuts, lost = cut_everywhere(disk)
    print(f"{cuts} power cuts of a real ext4, {lost} checkpoints lost")
    assert cuts > 10
    assert lost == 0


@pytest.mark.fault
def test_a_store_that_never_flushes_is_caught(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert cut_everywhere(disk)[1] > 0


@pytest.mark.fault
def test_a_store_that_never_flushes_directories_is_caught(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Filesystem, "sync_directory", lambda *_: None)
    assert cut_everywhere(disk)[1] > 0
