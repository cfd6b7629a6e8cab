"""Standard streams that fail: a closed pipe, a lost terminal, a log on a full disk.

A failing stream must not decide what is computed: a run continues without its output. A tool that
only prints ends when nobody reads its output any more, as other tools do.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

from plora_cl.cli.exit import REFUSED

CLOSED_PIPE = 141  # 128 + SIGPIPE, as shells report it

_FOR_GOOD = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)
"""Errors after which a stream is lost; after others, such as a full disk, it may recover."""


@contextmanager
def continuing_without_output() -> Iterator[None]:
    """Drop output that stdout or stderr refuse, instead of failing."""
    with _replaced("stdout", _nothing), _replaced("stderr", _nothing):
        yield


@contextmanager
def ending_without_output() -> Iterator[None]:
    """End the command quietly, with exit code 141, when nobody reads its stdout any more.

    Raises:
        SystemExit: Also where stdout refuses for another reason, which is printed.
    """
    with _replaced("stdout", _end), _replaced("stderr", _nothing):
        yield


def open_standard_streams() -> None:
    """Open those of file descriptors 0 to 2 that are closed.

    The next file would get the number otherwise, and a checkpoint the output of a library.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


class _Output:
    """A text stream that handles its errors.

    Args:
        stream: The stream to write to.
        when_failed: Called with each error.
    """

    def __init__(self, stream: TextIO, when_failed: Callable[[OSError], None]) -> None:
        self._stream, self._when_failed = stream, when_failed

    @property
    def stream(self) -> TextIO:
        """The stream itself."""
        return self._stream

    def write(self, text: str) -> int:
        """Write as far as possible."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Flush as far as possible."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """Leave no data whose flush would fail when the process ends."""
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _failed(self, error: OSError) -> None:
        if error.errno in _FOR_GOOD:
            self._discard()
        self._when_failed(error)

    def _discard(self) -> None:
        with suppress(OSError):  # a stream of a test has no descriptor
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())
            os.close(devnull)


@contextmanager
def _replaced(name: str, when_failed: Callable[[OSError], None]) -> Iterator[None]:
    stream: Any = getattr(sys, name)
    if stream is None:  # closed from the beginning: print() then does nothing
        yield
        return
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # of characters that its encoding lacks
    output = _Output(stream.stream if isinstance(stream, _Output) else stream, when_failed)
    setattr(sys, name, cast(TextIO, output))
    try:
        yield
        output.flush()
    finally:
        setattr(sys, name, stream)
        output.close()


def _nothing(error: OSError) -> None:
    """Ignore the error."""


def _end(error: OSError) -> None:
    if error.errno == errno.EPIPE:
        raise SystemExit(CLOSED_PIPE)
    print(f"Error: stdout cannot be written: {error.strerror}", file=sys.stderr)
    raise SystemExit(REFUSED)
