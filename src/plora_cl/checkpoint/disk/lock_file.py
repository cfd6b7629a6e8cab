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
    """A file, or a folder, that is opened and locked; closed at the latest when nobody needs it.

    Whatever interrupts its user, the lock does not outlive the object. A child made by ``os.fork``
    has it closed.

    Attributes:
        path: Where it is.
        closed: Set when it is closed.
        is_exclusive: The file system has granted the lock; not so where it has no locks.
    """

    _descriptor = -1  # also of one whose making was interrupted

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
        """Open what is at the path, locked; tell whether that worked or another one holds it.

        Args:
            folder: It is a folder. A file is made where there is none.

        Raises:
            OSError: The disk refused.
        """
        try:
            self._descriptor = os.open(self.path, _FOLDER if folder else _MAKING, 0o666)
        except FileNotFoundError:
            return False  # another one released the lock and removed its empty folder
        granted = flock(self._descriptor, fcntl.LOCK_EX)
        self.is_exclusive = bool(granted)
        # Whoever releases the lock removes the file: a lock on a file that has no name is none.
        if granted is not False and self.is_in_place():
            self.closed.clear()
            return True
        self.close()
        return False

    def is_in_place(self) -> bool:
        """Tell whether what is locked is still what is at the path.

        Raises:
            OSError: The disk does not say.
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
        """Put ``record`` in place of what is in it; from here on it is removed when closed.

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
        """Set that time to now, and warn once where the file is not at its path any more."""
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
        """Let others have it; nothing happens the second time, or in a forked child."""
        descriptor = self._descriptor
        if descriptor < 0:
            return
        self.closed.set()
        try:
            if self._is_ours:
                with suppress(OSError):
                    # The record counts even where its name cannot be removed.
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


def flock(descriptor: int, kind: int) -> bool | None:
    """Try to lock an open file; return whether that worked, None where the disk has no locks.

    Raises:
        OSError: The disk refused.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return None
    return True


def is_free(folder: Path) -> bool:
    """Tell whether nobody has locked ``folder`` itself.

    Raises:
        OSError: The disk refused.
    """
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return False  # see `LockFile.open_locked`
    except PermissionError:
        return True  # then nobody can have opened it either
    try:
        return flock(descriptor, fcntl.LOCK_SH) is not False
    finally:
        os.close(descriptor)


def _leave_to_parent() -> None:
    for file in list(_open):
        file._leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
