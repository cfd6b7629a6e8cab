"""The files that hold a run log: the log itself, and copies of it that branches set aside."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from plora_cl.bounded_reading import open_regular

_PIECE = 1 << 20
_DIGITS = 8


def copy_of(log: Path, *, branch: int, sha256: str) -> Path:
    """Return where a copy of ``log`` goes, made before ``branch`` cuts it back.

    Args:
        log: The run log.
        branch: Number of the branch.
        sha256: Digest of the whole log.
    """
    return log.with_name(f"{log.name}.before-branch{branch}-{sha256[:_DIGITS]}")


def copies_of(log: Path, names: Iterable[str]) -> dict[Path, int]:
    """Return the copies of ``log``, sorted, and the number of the branch that made each.

    Args:
        log: The run log.
        names: Those in its folder.
    """
    pattern = re.compile(
        rf"{re.escape(log.name)}\.before-branch([0-9]+)-[0-9a-f]{{{_DIGITS}}}", re.ASCII
    )
    matches = (pattern.fullmatch(name) for name in sorted(names))
    return {log.with_name(match[0]): int(match[1]) for match in matches if match}


def holder_of(
    candidates: Iterable[Path],
    length: int,
    sha256: str,
    *,
    open_file: Callable[[Path], BinaryIO] = open_regular,
) -> Path | None:
    """Return which file holds a position of a run log.

    Args:
        candidates: The log and its copies; one that is not there is empty.
        length: Bytes of the log before the position.
        sha256: Their digest.
        open_file: Opens a file for reading.

    Returns:
        The first file that begins with those bytes; None where none does.

    Raises:
        OSError: A file that had to be looked at cannot be read.
    """
    for path in candidates:
        try:
            with open_file(path) as file:
                found = _digest(file, length)
        except (FileNotFoundError, NotADirectoryError):
            found = hashlib.sha256().hexdigest()
        if found == sha256:
            return path
    return None


def _digest(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        digest.update(piece)
        length -= len(piece)
    return digest.hexdigest()
