"""System calls that fail, in this process: what `Filesystem` is made of."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

CALLS = ("open", "write", "fsync", "close", "replace", "link", "unlink", "mkdir", "listdir", "stat")


class FaultyCalls:
    """Makes the system calls, counted from 0, that ``fails`` picks fail with ``fault``.

    A failing write leaves half its bytes behind; without a fault it returns how many, no more.

    Attributes:
        count: Calls so far.
        failed_flushes: Of files.
        is_over: Whether calls succeed again; they are watched as before.
        unsafe: Inodes whose flush failed: they must never be flushed again or get a final name.
    """

    def __init__(self, fault: Callable[[], Exception] | None, fails: Callable[[int], bool]) -> None:
        self._fault, self._fails = fault, fails
        self.count = self.failed_flushes = 0
        self.is_over = False
        self.unsafe: set[int] = set()
        self._real = {name: getattr(os, name) for name in CALLS}

    @contextmanager
    def active(self) -> Iterator[None]:
        with ExitStack() as patches:
            for name in CALLS:
                patches.enter_context(mock.patch.object(os, name, self._wrapped(name)))
            yield

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if name == "replace":
                inode = self._real["stat"](arguments[0]).st_ino
                assert inode not in self.unsafe, "a file whose flush failed got its final name"
            failing = not self.is_over and self._fails(self.count - 1)
            if name == "unlink" and not failing:
                status = self._real["stat"](arguments[0])
                if status.st_nlink == 1:
                    self.unsafe.discard(status.st_ino)
            if name == "fsync":
                self._note_flush(arguments[0], failing)
            if not failing:
                return real(*arguments, **options)
            result = None
            if name == "write":
                result = real(arguments[0], bytes(arguments[1][: max(1, len(arguments[1]) // 2)]))
            if self._fault is None:
                return result if name == "write" else real(*arguments, **options)
            if name == "close":
                real(*arguments)  # Linux closes it, whatever it returns
            raise self._fault()

        return call

    def _note_flush(self, descriptor: int, failing: bool) -> None:
        status = os.fstat(descriptor)
        assert status.st_ino not in self.unsafe, "a file whose flush failed was flushed again"
        if failing and self._fault is not None and stat.S_ISREG(status.st_mode):
            self.unsafe.add(status.st_ino)
            self.failed_flushes += 1
