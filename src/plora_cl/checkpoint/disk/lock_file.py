"""The file whose lock keeps other processes out of an experiment."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import weakref
from contextlib import suppress
from pathlib import Path

MAX_RECORD_BYTES = 4096

_MAKING = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)

log = logging.getLogger(__name__)
_open: weakref.WeakSet[LockFile] = weakref.WeakSet()


class LockFile:
    """A file, or a folder, that is opened and locked.

    The lock does not outlive the object. In a child made by ``os.fork`` it is closed.

    Attributes:
        path: Its path.
        closed: Set when it is closed.
        is_exclusive: Whether the file system granted the lock; False where it has no locks.
    """

    _descriptor = -1  # also where the constructor was interrupted

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = threading.Event()
        self.is_exclusive = False
        self._is_ours = self._was_lost = False
        _open.add(self)

    @property
    def is_open(self) -> bool:
        """Whether this process has it open."""
        return self._descriptor >= 0

    def open_locked(self, *, folder: bool = False) -> bool:
        """Open and lock the path; return False where another process holds it.

        Args:
            folder: The path is a folder. A file is made where there is none.

        Raises:
            OSError: The disk refused.
        """
        try:
            self._descriptor = os.open(self.path, _FOLDER if folder else _MAKING, 0o666)
        except FileNotFoundError:
            return False  # another process released the lock and removed its empty folder
        granted = flock(self._descriptor, fcntl.LOCK_EX)
        self.is_exclusive = bool(granted)
        # The holder removes the file when it releases the lock: a nameless file locks nothing.
        if granted is not False and self.is_in_place():
            self.closed.clear()
            return True
        self.close()
        return False

    def is_in_place(self) -> bool:
        """Tell whether the locked file is still the one at the path.

        Raises:
            OSError: The disk refused.
        """
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.lstat())
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False

    def read(self) -> bytes:
        """Return the record in it; `OSError` as the disk says."""
        return os.pread(self._descriptor, MAX_RECORD_BYTES, 0)

    def write(self, record: bytes) -> None:
        """Replace the content with ``record``; from now on `close` removes the file.

        Raises:
            OSError: The disk refused; it is empty then.
        """
        self._is_ours = True
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, record, 0)

    def modified(self) -> float:
        """Return when it was changed last, by the clock of the file system."""
        return os.fstat(self._descriptor).st_mtime

    def show_life(self) -> None:
        """Set that time to now, and warn once where the file is no longer at its path."""
        with suppress(OSError):
            os.utime(self._descriptor)  # the file system's clock, the same for all machines
            if not self._was_lost and not self.is_in_place():
                self._was_lost = True
                log.warning(
                    "%s was moved or removed while this process works there; it writes nothing "
                    "more into that folder",
                    self.path,
                )

    def close(self) -> None:
        """Release the lock; does nothing the second time, or in a forked child."""
        descriptor = self._descriptor
        if descriptor < 0:
            return
        self.closed.set()
        try:
            if self._is_ours:
                with suppress(OSError):
                    # A record that stays would count as a holder.
                    os.ftruncate(descriptor, 0)
                with suppress(OSError):
                    if self.is_in_place():
                        self.path.unlink()
        finally:
            self._descriptor = -1
            os.close(descriptor)

    __del__ = close

    def _leave_to_parent(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def flock(descriptor: int, kind: int, *, wait: bool = False) -> bool | None:
    """Try to lock an open file; return whether that worked, None where the disk has no locks.

    Args:
        descriptor: Of the file or directory.
        kind: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
        wait: Wait until the holder lets go.

    Raises:
        OSError: The disk refused.
    """
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return None
    return True


def is_free(folder: Path) -> bool:
    """Tell whether no process has locked ``folder`` itself.

    Raises:
        OSError: The disk refused.
    """
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return False  # see `LockFile.open_locked`
    except PermissionError:
        return True  # then no process can have opened it either
    try:
        return flock(descriptor, fcntl.LOCK_SH) is not False
    finally:
        os.close(descriptor)


def _leave_to_parent() -> None:
    for file in list(_open):
        file._leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
