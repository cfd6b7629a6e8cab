"""I: a disk that is really full, and a file that may really not grow."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.scenario import newest_note, older_run, partial_files, save
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError
from tmpfs import tmpfs

PADDING = "x" * 20_000
PAGE = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 pages."""
    with tmpfs(tmp_path / "disk", f"size={64 * PAGE}") as place:
        yield place


@pytest.mark.fault
def test_a_disk_with_any_room_left_keeps_what_it_has_and_takes_the_next_save(
    small_disk: Path,
) -> None:
    refused = 0
    for free in range(20):
        directory = small_disk / str(free)
        older_run(directory, PADDING)
        filler = small_disk / "filler"
        status = os.statvfs(small_disk)
        filler.write_bytes(bytes((status.f_bavail - free) * PAGE))
        assert os.statvfs(small_disk).f_bavail == free
        store = CheckpointStore(directory)
        try:
            save(store, PADDING)
        except CheckpointError as error:
            assert "No space left on device" in str(error)  # noqa: PT017
            assert newest_note(directory) == "old"
            refused += 1
        assert not partial_files(directory)
        filler.unlink()
        save(store, PADDING)
        assert newest_note(directory) == "new"
        for path in sorted(directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert 5 < refused < 20
    print(f"{refused} saves on a full disk refused, 0 checkpoints lost")


@pytest.mark.fault
def test_a_limit_on_the_size_of_files_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in range(0, 22_000, 1000):
        directory = tmp_path / str(limit)
        older_run(directory, PADDING)
        store = CheckpointStore(directory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save(store, PADDING)
        except CheckpointError as error:
            message = str(error)
            refused += 1
        else:
            message = "File too large"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "File too large" in message
        assert newest_note(directory) in ("old", "new")
        assert not partial_files(directory)
        save(store, PADDING)
        assert newest_note(directory) == "new"
    assert 10 < refused < 22
    print(f"{refused} writes beyond a limit refused, 0 checkpoints lost")
