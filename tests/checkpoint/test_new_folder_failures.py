"""A fork or an import that the disk refuses once is completed by the same command."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from checkpoint.test_bundle import exported, make_checkpoint
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.bundle import import_bundle
from plora_cl.checkpoint.tools.fork import fork
from plora_cl.errors import CheckpointError

Making: TypeAlias = Callable[[Path, Filesystem], CheckpointEntry]

__all__ = ["exported"]


class RefusesOnce(Filesystem):
    """A disk whose n-th flush of a directory fails: what was renamed there is there."""

    def __init__(self, number: int) -> None:
        self.left = number

    def sync_directory(self, path: Path) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().sync_directory(path)


@pytest.fixture(params=["fork", "import"])
def make(request: pytest.FixtureRequest, tmp_path: Path, exported: Path) -> Making:
    source = make_checkpoint(tmp_path / "parent")

    def forked(folder: Path, disk: Filesystem) -> CheckpointEntry:
        return fork(
            source, folder, settings={}, accepted=[], config="seed: 1\n", filesystem=disk
        ).entry

    def imported(folder: Path, disk: Filesystem) -> CheckpointEntry:
        return import_bundle(exported, folder, config=lambda _: "seed: 1\n", filesystem=disk)

    return forked if request.param == "fork" else imported


def test_whatever_flush_fails_the_same_command_completes_it(tmp_path: Path, make: Making) -> None:
    failures = 0
    for number in range(1, 200):
        folder, disk = tmp_path / str(number), RefusesOnce(number)
        try:
            entry = make(folder, disk)
        except CheckpointError:
            failures += 1
            assert not [path.name for path in folder.rglob("*.partial")]
            entry = make(folder, Filesystem())
        assert [path.name for path in entry.path.parent.glob("*.pt")] == [entry.path.name]
        CheckpointStore(entry.path.parent).verify(entry)
        if disk.left > 0:
            break
    assert failures > 5
