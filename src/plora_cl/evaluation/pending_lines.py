"""Lines that are appended to a file from memory, each exactly once."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO


class PendingLines:
    """Lines of a file that are not durable yet.

    A line is kept until it is durable: a disk may take half of it, or report a loss only when it
    flushes. After a failure the file is cut back to what is durable, and all lines since are
    written again. `add` never waits for the disk.

    Args:
        path: The file; created with its first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changing = threading.Lock()  # never held while the disk works
        self._lines: list[bytes] = []
        self._writing = threading.Lock()
        self._durable = 0  # bytes of the file that no failure takes back
        self._written = 0  # lines that follow them in the file
        self._end = 0  # bytes of the file up to the end of those
        self._may_repeat = True

    def __len__(self) -> int:
        """Return the number of lines that are not durable."""
        return len(self._lines)

    def follow(self, length: int) -> None:
        """Drop all lines; the next ones follow the first ``length`` bytes of the file.

        What the file has after them stays as long as the next lines are equal.
        """
        with self._writing, self._changing:
            self._lines, self._durable, self._written, self._end = [], length, 0, length
            self._may_repeat = True

    def add(self, line: bytes) -> None:
        """Add a line, with its end."""
        with self._changing:
            self._lines.append(line)

    def write(self, *, durably: bool) -> None:
        """Write every line; if ``durably``, all of them survive a power cut on return.

        Raises:
            OSError: The disk refused; the message names the file, and every line is kept.
        """
        with self._writing:
            if not self._lines:
                return
            try:
                self._write(durably=durably)
            except OSError as error:
                self._written, self._end = 0, self._durable
                self._may_repeat = False  # equal bytes need not be on the disk any more
                reason = error.strerror or str(error)
                raise OSError(error.errno, reason, str(self._path)) from error

    def cut(self) -> None:
        """Remove what the file has after the last line that was written: no line follows.

        Raises:
            OSError: The disk refused.
        """
        with self._writing:
            cut(self._path, self._end)

    def _write(self, *, durably: bool) -> None:
        with self._changing:
            lines = self._lines[self._written :]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            end = min(self._end, size)  # the file may have been shortened
            file.seek(end)
            there = self._repeated(file, lines)
            end += sum(map(len, lines[:there]))
            if there < len(lines):
                file.seek(end)
                if size > end:
                    file.truncate()
                file.writelines(lines[there:])
                end = file.tell()
                file.flush()
            if durably:
                os.fsync(file.fileno())
        self._written, self._end = self._written + len(lines), end
        if durably:
            self._forget_written()

    def _repeated(self, file: BinaryIO, lines: Sequence[bytes]) -> int:
        """Return how many of ``lines`` the file already has here."""
        if not self._may_repeat:
            return 0
        for there, line in enumerate(lines):
            if file.read(len(line)) != line:
                self._may_repeat = False
                return there
        return len(lines)

    def _forget_written(self) -> None:
        for folder in (self._path.parent, self._path.parent.parent):
            sync(folder)
        with self._changing:
            del self._lines[: self._written]
        self._durable, self._written = self._end, 0


def cut(path: Path, length: int) -> None:
    """Remove durably what a file has after its first ``length`` bytes, if there is such a file."""
    if path.exists() and path.stat().st_size > length:
        os.truncate(path, length)
        sync(path)


def sync(path: Path) -> None:
    """Make the content of a file or a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
