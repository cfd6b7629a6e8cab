"""Reading files that somebody else may have written: what they may cost is bounded beforehand."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from plora_cl.errors import CorruptCheckpointError

MOST_JSON_MEMORY = 64 << 20
"""Bytes that a parsed document may take. One kilobyte goes to an entry of a manifest that names an
object: ten of them for each of a thousand tasks take a sixth of it."""

_CHUNK = 1 << 20

# Bytes of memory in CPython on 64 bits that a character of JSON stands for at most: a dict of up to
# five entries, a list, a place in either, a key, one of the two ends of a string.
_COSTS = {b"{": 240, b"[": 96, b",": 48, b":": 64, b'"': 32}


def parse_json(data: bytes, most_memory: int = MOST_JSON_MEMORY) -> Any:
    """Return what a JSON document says.

    Args:
        data: UTF-8.
        most_memory: Bytes that the result may take.

    Raises:
        ValueError: It is not JSON, has a number that is not finite or half a character, is nested
            too deeply, or would take more memory; the message is one line.
    """
    if json_memory(data) > most_memory:
        raise ValueError(f"it has {len(data)} bytes and describes too many values")
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_refuse)
        if b"\\u" in data:  # half of a pair of surrogates cannot be printed
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def json_memory(data: bytes) -> int:
    """Return how many bytes what a JSON document says takes at most, without parsing it."""
    return 2 * len(data) + sum(cost * data.count(mark) for mark, cost in _COSTS.items())


def open_regular(path: Path, *, follow_links: bool = True) -> BufferedReader:
    """Open a regular file for reading; it never waits for the other end of a pipe.

    Args:
        path: The file.
        follow_links: Whether ``path`` may be a symbolic link.

    Raises:
        OSError: It cannot be read, is a pipe, a device or a directory, or a link that is refused.
    """
    links = 0 if follow_links else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_small(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a regular file that has at most ``most_bytes``.

    Raises:
        OSError: It cannot be read, is a pipe, a device or a directory, or is larger.
    """
    with open_regular(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes} bytes", str(path))
    return data


def chunks_of(file: BinaryIO, count: int, what: str) -> Iterator[bytes]:
    """Yield the next ``count`` bytes of ``file`` in pieces of bounded size.

    Raises:
        CorruptCheckpointError: The file ends earlier; the message names ``what``.
    """
    while count:
        chunk = file.read(min(count, _CHUNK))
        if not chunk:
            raise CorruptCheckpointError(f"{what} ends {count} bytes too early")
        count -= len(chunk)
        yield chunk


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
