"""Where caches are, and which of their entries a living process uses; loads no torch.

A process that uses an entry holds a shared lock on the file ``users`` in its folder. Whoever
removes entries takes that lock alone, without waiting, and leaves an entry that it does not get.
The lock ends with its process, also by SIGKILL.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

TOKENS, TEMPORARY = ".arrow", ".tmp"
"""Suffixes of a file of tokens, and of one that is being written."""

GENERATED = "generated"
"""The folder of generated texts in the cache folder."""

_USERS = "users"


def default_cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return ``$PLORA_CL_CACHE``, else ``plora_cl`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := environment.get("PLORA_CL_CACHE"):
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "plora_cl"


class Use:
    """A lock on an entry of a cache, until the object is dropped; see `use` and `alone`.

    Args:
        folder: Of the entry.
        kind: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``, never waiting with ``fcntl.LOCK_NB``.
        make: Make the file of the lock where there is none.

    Raises:
        OSError: The folder cannot be written, its disk has no locks, or another process holds it.
    """

    _descriptor = -1

    def __init__(self, folder: Path, kind: int, *, make: bool = True) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
        self._descriptor = os.open(folder / _USERS, flags, 0o666)
        fcntl.flock(self._descriptor, kind)

    def close(self) -> None:
        """Release it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    __del__ = close


def use(folder: Path) -> Use | None:
    """Mark the entry in ``folder`` as used, for as long as the result is kept.

    Returns:
        The lock; None where the folder cannot be written, or its disk has no locks.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        lock = Use(folder, fcntl.LOCK_SH)
        os.utime(folder / _USERS)
        return lock
    return None


def used_last(folder: Path) -> float | None:
    """Return when `use` was called last, in seconds since the epoch; None if it never was."""
    try:
        return (folder / _USERS).stat().st_mtime
    except OSError:
        return None


def is_used(folder: Path) -> bool:
    """Return whether a living process uses the entry in ``folder``; changes nothing.

    True, too, on a disk without locks: who uses an entry there is not known.
    """
    try:
        Use(folder, fcntl.LOCK_EX | fcntl.LOCK_NB, make=False).close()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def alone(folder: Path) -> Use | None:
    """Return a lock that nobody else has while it is kept; None if a process uses the entry.

    None, too, on a disk without locks: who uses an entry there is not known.
    """
    with suppress(OSError):
        return Use(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return None
