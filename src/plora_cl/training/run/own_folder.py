"""The folder of an experiment, which one trainer at a time writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.disk.lock import ExperimentLock


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
        self.disk = Filesystem(self._require_held)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the experiment, unless this object does already.

        Raises:
            ExperimentLockedError: Another process, or trainer, holds it.
            CheckpointError: The disk refused.
        """
        if self._lock is not None:
            yield
            return
        with ExperimentLock.acquire(self._path) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def _require_held(self) -> None:
        if self._lock is not None:
            self._lock.require_held()
