from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from plora_cl.checkpoint.disk.filesystem import Content, Filesystem, is_partial, write_durably


class Recording(Filesystem):
    """Notes each operation; fails those of one kind."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self._failing = failing

    def _note(self, operation: str) -> None:
        self.calls.append(operation)
        if operation == self._failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, path: Path, data: Content) -> None:
        super().write(path, data)
        assert is_partial(path.name)
        self._note("write")

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename")
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._note("sync")
        super().sync_directory(path)


def test_a_durable_write_flushes_content_then_renames_then_flushes_the_name(
    tmp_path: Path,
) -> None:
    disk = Recording()
    write_durably(disk, tmp_path / "config.yaml", memoryview(b"content"))
    assert disk.calls == ["write", "rename", "sync"]
    assert (tmp_path / "config.yaml").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_failed_write_leaves_the_old_content_and_no_partial_file(
    tmp_path: Path, failing: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        write_durably(Recording(failing), path, b"new")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_content_is_flushed_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    Filesystem().write(tmp_path / "file", b"12345")
    assert flushed == [5]


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    Filesystem().write(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_write_never_goes_through_an_existing_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Filesystem().write(tmp_path / "link", b"data")


def test_symbolic_links_pipes_and_directories_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match=r"symbolic|not a regular file"):
            Filesystem().open(tmp_path / name)
    assert Filesystem().size(tmp_path / "link") is None
    assert Filesystem().size(tmp_path / "missing") is None
    assert Filesystem().size(tmp_path / "file") == 6


def test_every_new_directory_and_the_parent_of_an_old_one_are_flushed(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Disk(Filesystem):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)
            super().sync_directory(path)

    Disk().make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced[-2:] == [tmp_path, tmp_path / "a"]
    synced.clear()
    Disk().make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path / "a"]


def test_a_missing_directory_has_no_names(tmp_path: Path) -> None:
    assert Filesystem().names(tmp_path / "missing") == ()
