"""One writer per experiment: a file lock, and a record of who holds it.

The kernel releases the file lock (``flock``) whenever its process ends, however it ends. The record
beside it says whom to blame, and decides alone where machines share a disk but not its locks: the
modification time of the file is the sign of life of a holder on another machine.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
import uuid
import weakref
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from plora_cl.bounded_reading import read_small
from plora_cl.checkpoint.disk_errors import writing
from plora_cl.checkpoint.lock_holder import Holder, refusal
from plora_cl.errors import ExperimentLockedError

LOCK_NAME = ".lock"
HEARTBEAT_SECONDS = 60.0

_ATTEMPTS, _PAUSE_SECONDS = 10, 0.05
_MAX_RECORD_BYTES = 4096
_LOOKING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

log = logging.getLogger(__name__)
_held: weakref.WeakSet[ExperimentLock] = weakref.WeakSet()


class ExperimentLock:
    """Held by the one process that writes to an experiment folder; see `acquire`.

    A child made by ``os.fork`` does not hold it, and the death of the parent releases it.
    """

    def __init__(self, folder: Path, descriptor: int, *, made_folder: bool) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._made_folder = made_folder
        self._released = threading.Event()
        _held.add(self)
        self._heart = threading.Thread(target=self._beat, name="experiment-lock", daemon=True)
        self._heart.start()

    @classmethod
    def acquire(cls, folder: Path) -> Self:
        """Take the lock of the experiment in ``folder``, which is made if it is not there.

        Use it in a ``with`` statement. A lock whose holder is dead is taken over with a warning.

        Raises:
            ExperimentLockedError: Somebody holds it, perhaps this very process.
            CheckpointError: The disk refused.
        """
        path = folder / LOCK_NAME
        with writing(path):
            made_folder = not folder.exists()
            for attempt in range(_ATTEMPTS):
                if attempt:  # a dying process, or one that only looks, lets go in a moment
                    time.sleep(_PAUSE_SECONDS)
                folder.mkdir(parents=True, exist_ok=True)
                descriptor = _open_locked(path)
                if descriptor is not None:
                    break
            else:
                raise ExperimentLockedError(refusal(folder, _read(path)))
            try:
                _take_over(folder, descriptor)
                record = json.dumps(asdict(Holder.this_process())).encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, record, 0)
            except BaseException:
                os.close(descriptor)
                raise
        return cls(folder, descriptor, made_folder=made_folder)

    def release(self) -> None:
        """Let others write; nothing happens in a forked child, or the second time."""
        descriptor = self._forget()
        if descriptor < 0:
            return
        self._released.set()
        self._heart.join()
        path = self._folder / LOCK_NAME
        with suppress(OSError):
            if _is_same(descriptor, path):
                path.unlink()
            if self._made_folder:
                self._folder.rmdir()  # refused, as it should be, where anything was written
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _beat(self) -> None:
        descriptor = self._descriptor
        while not self._released.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(descriptor)  # the file system's clock, the same for all machines

    def _forget(self) -> int:
        descriptor, self._descriptor = self._descriptor, -1
        _held.discard(self)
        return descriptor

    def _leave_to_parent(self) -> None:
        descriptor = self._forget()
        if descriptor >= 0:
            os.close(descriptor)


def holder_of(folder: Path) -> Holder | None:
    """Return who is writing to the experiment in ``folder``, or None. Changes nothing there.

    Raises:
        CheckpointError: The disk refused.
    """
    path = folder / LOCK_NAME
    unknown = Holder("an unknown host", 0, "", 0, "an unknown time")
    with writing(path):
        try:
            descriptor = os.open(path, _LOOKING)
        except FileNotFoundError:
            return None
        try:
            record = Holder.from_json(os.pread(descriptor, _MAX_RECORD_BYTES, 0))
            if not _flock(descriptor, fcntl.LOCK_SH):
                return record or unknown
            if record is None or record.gone_because(_silence(folder, descriptor)):
                return None
            return record
        finally:
            os.close(descriptor)


def require_free(folder: Path) -> None:
    """Refuse to go near the experiment in ``folder`` while a living process writes to it.

    Takes no lock, so that it may be asked before anything heavy is loaded.

    Raises:
        ExperimentLockedError: Somebody holds it.
        CheckpointError: The disk refused.
    """
    attempts = _ATTEMPTS
    while (holder := holder_of(folder)) is not None:
        attempts -= 1
        if not attempts:
            raise ExperimentLockedError(refusal(folder, holder))
        time.sleep(_PAUSE_SECONDS)


def is_held(folder: Path) -> bool:
    """Tell whether a living process writes to the experiment in ``folder``.

    Raises:
        CheckpointError: The disk refused.
    """
    return holder_of(folder) is not None


def _open_locked(path: Path) -> int | None:
    """Return a descriptor of the locked file now at ``path``; None where another one holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        return None  # another one released the lock and removed its empty folder
    # Whoever releases the lock removes the file: a lock on a file that has no name is none.
    if _flock(descriptor, fcntl.LOCK_EX) and _is_same(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _take_over(folder: Path, descriptor: int) -> None:
    earlier = Holder.from_json(os.pread(descriptor, _MAX_RECORD_BYTES, 0))
    if earlier is None:
        return
    reason = earlier.gone_because(_silence(folder, descriptor))
    if reason is None:
        raise ExperimentLockedError(refusal(folder, earlier))
    log.warning(
        "%s: taking over the lock of process %d on %s (since %s): %s",
        folder,
        earlier.pid,
        earlier.host,
        earlier.since,
        reason,
    )


def _silence(folder: Path, descriptor: int) -> float:
    """Return the seconds since the last sign of life, by the clock of the file system."""
    probe = folder / f"{LOCK_NAME}.{os.getpid()}-{uuid.uuid4().hex[:12]}.partial"
    try:
        probe.touch(exist_ok=False)
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()  # not ours to write: the clock of this machine has to do
    finally:
        with suppress(OSError):
            probe.unlink()
    return now - os.fstat(descriptor).st_mtime


def _read(path: Path) -> Holder | None:
    try:
        return Holder.from_json(read_small(path, _MAX_RECORD_BYTES))
    except OSError:
        return None


def _leave_locks_to_parent() -> None:
    for lock in list(_held):
        lock._leave_to_parent()


os.register_at_fork(after_in_child=_leave_locks_to_parent)
