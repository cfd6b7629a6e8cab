"""The folder of an experiment, which one trainer at a time writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from plora_cl.checkpoint.disk.errors import reading
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError, ExperimentExistsError
from plora_cl.wording import counted

Files: TypeAlias = set[tuple[str, int, int]]
"""Name, inode and time of change of each file: one that is replaced has others."""


class OwnFolder:
    """The folder of an experiment, locked while its trainer works.

    Args:
        path: Of the folder.

    Attributes:
        disk: What to write with. While the lock is held, each write checks that it still guards the
            folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: ExperimentLock | None = None
        self._own: Files | None = None
        self.disk = Filesystem(self._require_held)

    @contextmanager
    def locked(self, *, for_a_save: bool = False) -> Iterator[bool]:
        """Hold the lock of the experiment; yield whether this object did already.

        Args:
            for_a_save: A training loop of the user's own saves, which holds no lock between two
                saves: refuse a folder where another one has saved meanwhile.

        Raises:
            ExperimentLockedError: Another process, or trainer, holds it.
            ExperimentExistsError: There are checkpoints of another one.
            CheckpointError: The disk refused.
        """
        if self._lock is not None:
            yield True
            return
        with ExperimentLock.acquire(self._path) as lock:
            before = self.checkpoints()
            if for_a_save:
                self._require_own(before)
            self._lock = lock
            try:
                yield False
            finally:
                self._lock = None
                with suppress(CheckpointError):  # what stays unknown is refused by the next save
                    after = self.checkpoints()
                    self._own = after if after != before else self._own

    def continue_from(self, checkpoints: Files) -> None:
        """Take ``checkpoints`` for those of this trainer, which has loaded one."""
        self._own = checkpoints

    def checkpoints(self) -> Files:
        """Return the checkpoints that are there.

        Raises:
            CheckpointError: The folder cannot be listed.
        """
        found: Files = set()
        for entry in CheckpointStore(self._path / "checkpoints").entries():
            with reading(entry.path), suppress(FileNotFoundError):  # removed meanwhile
                status = entry.path.lstat()
                found.add((entry.path.name, status.st_ino, status.st_mtime_ns))
        return found

    def _require_own(self, there: Files) -> None:
        directory = self._path / "checkpoints"
        if self._own is None and there:
            raise ExperimentExistsError(
                f"{directory} already holds {counted(len(there), 'checkpoint')}: call "
                "load_checkpoint() before the first save_checkpoint(), or use another experiment"
            )
        if foreign := there - (self._own or set()):
            raise ExperimentExistsError(
                f"{directory / max(foreign)[0]} was written by another process or trainer since "
                "this one saved or loaded a checkpoint: let one of them save, and continue from "
                "its checkpoint with load_checkpoint(), or use another experiment"
            )

    def _require_held(self) -> None:
        if self._lock is not None:
            self._lock.require_held()
