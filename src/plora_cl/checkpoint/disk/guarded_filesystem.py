"""A disk that nothing is changed on any more once that is not ours to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from plora_cl.checkpoint.disk.filesystem import LocalFilesystem, ReadableBytes


def _anything() -> None:
    """Permit everything."""


class GuardedFilesystem(LocalFilesystem):
    """The local disk, for whoever works in a folder that only its lock makes his own.

    Everything goes by path, and what is at a path may be somebody else's by now: ``require`` is
    asked before each change.

    Args:
        require: Raises what ends the work, see `ExperimentLock.require_held`. Costs microseconds.
    """

    def __init__(self, require: Callable[[], None] = _anything) -> None:
        self.require = require

    def write_chunks(self, path: Path, chunks: Iterable[ReadableBytes]) -> None:
        """See `Filesystem`."""
        self.require()
        super().write_chunks(path, chunks)

    def rename(self, source: Path, target: Path) -> None:
        """See `Filesystem`."""
        self.require()
        super().rename(source, target)

    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        """See `Filesystem`."""
        self.require()
        super().link(file, source, target)

    def remove(self, path: Path) -> None:
        """See `Filesystem`."""
        self.require()
        super().remove(path)

    def make_directory(self, path: Path) -> None:
        """See `Filesystem`."""
        self.require()
        super().make_directory(path)
