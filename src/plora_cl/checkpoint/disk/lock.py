"""One writer per experiment: a file lock, and a record of who holds it.

The kernel releases the file lock (``flock``) when its process ends, also by SIGKILL. The record in
the file names the holder. Where machines share a disk but not its locks, the record alone decides:
the modification time of the file is the sign of life of a holder on another machine.
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
from typing import Self

from plora_cl.bounded_reading import read_small
from plora_cl.checkpoint.disk.errors import reading, writing
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.disk.lock_file import MAX_RECORD_BYTES, LockFile, flock, is_free
from plora_cl.checkpoint.disk.lock_holder import UNKNOWN, Holder, refusal
from plora_cl.errors import ExperimentLockedError, ExperimentMovedError

LOCK_NAME = ".lock"
HEARTBEAT_SECONDS = 60.0

_ATTEMPTS, _PAUSE_SECONDS = 10, 0.05
_LOOKING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


class ExperimentLock:
    """Held by the one process that writes to an experiment folder; see `acquire`.

    A child made by ``os.fork`` does not hold it, and the death of the parent releases it. So does
    dropping the object.
    """

    def __init__(self, folder: Path, file: LockFile, *, made_folder: bool) -> None:
        self._folder, self._file = folder, file
        self._made_folder = made_folder
        self._heart = threading.Thread(
            target=_beat, args=(weakref.ref(file), file.closed), name="experiment-lock", daemon=True
        )
        self._heart.start()

    @classmethod
    def acquire(cls, folder: Path, *, only_to_remove: bool = False) -> Self:
        """Take the lock of the experiment in ``folder``, which is made where it does not exist.

        Use it in a ``with`` statement. A lock whose holder is dead is taken over with a warning.

        Args:
            folder: Of the experiment.
            only_to_remove: The holder only frees space, so that a full disk is no obstacle.

        Raises:
            ExperimentLockedError: Another process holds it, or this process already does.
            CheckpointError: The disk refused.
        """
        file, whole = LockFile(folder / LOCK_NAME), LockFile(folder)
        made_folder = False
        try:
            with writing(file.path):
                made_folder = not folder.exists()
                _open_either(folder, file, whole if only_to_remove else None)
                if file.is_open:
                    _take_over(folder, file)
                    _sign(file, is_needed=not (only_to_remove and file.is_exclusive))
            return cls(folder, file if file.is_open else whole, made_folder=made_folder)
        except BaseException:
            for opened in (file, whole):
                opened.close()
            with suppress(OSError):
                if made_folder:
                    folder.rmdir()
            raise

    @property
    def filesystem(self) -> Filesystem:
        """The disk, on which nothing is changed once `require_held` refuses."""
        return Filesystem(self.require_held)

    def require_held(self) -> None:
        """Refuse to continue where the lock guards nothing any more; costs microseconds.

        Raises:
            ExperimentMovedError: The folder, or its lock file, is no longer at its path.
        """
        if not self._file.is_open:
            raise ExperimentMovedError(
                f"{self._folder} is not writable: this process does not hold the lock; "
                "a forked child cannot continue the run of its parent"
            )
        try:
            is_held = self._file.is_in_place()
        except OSError:
            return  # the next operation reports what is wrong with the disk
        if not is_held:
            raise ExperimentMovedError(
                f"{self._folder} was moved, removed or replaced during the run: nothing more is "
                "written there; put it back, or open it at its new place, and resume from its last "
                "checkpoint (plora-cl train: --experiment-dir, --experiment-name, --resume auto)"
            )

    def release(self) -> None:
        """Release the lock; does nothing in a forked child, or the second time."""
        if not self._file.is_open:
            return
        try:
            self._file.closed.set()
            self._heart.join()
            with suppress(OSError):
                self._made_folder &= self._file.is_in_place()
        finally:
            self._file.close()
        with suppress(OSError):
            if self._made_folder:
                self._folder.rmdir()  # refused where anything was written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _beat(lock_file: weakref.ref[LockFile], closed: threading.Event) -> None:
    while not closed.wait(HEARTBEAT_SECONDS):
        file = lock_file()
        if file is None:
            return
        file.show_life()
        del file  # the waiting thread must not keep the lock


def holder_of(folder: Path) -> Holder | None:
    """Return the process that writes to the experiment in ``folder``, or None. Changes nothing.

    Raises:
        CheckpointError: The disk refused.
    """
    path = folder / LOCK_NAME
    with reading(path):
        try:
            descriptor = os.open(path, _LOOKING)
        except FileNotFoundError:
            return None
        try:
            record = Holder.from_json(os.pread(descriptor, MAX_RECORD_BYTES, 0))
            if flock(descriptor, fcntl.LOCK_SH) is False:
                return record or UNKNOWN
            modified = os.fstat(descriptor).st_mtime
            if record is None or record.gone_because(_silence(folder, modified)):
                return None
            return record
        finally:
            os.close(descriptor)


def recorded_holder(folder: Path) -> Holder | None:
    """Return the process that the lock of ``folder`` names, which may be gone; None if none does.

    A process that ends in any way but a SIGKILL or a power cut removes its name.
    """
    return _read(folder / LOCK_NAME)


def require_free(folder: Path) -> None:
    """Refuse an experiment that a living process writes to.

    Takes no lock, so that it can be called before anything heavy is loaded.

    Raises:
        ExperimentLockedError: A process holds it.
        CheckpointError: The disk refused.
    """
    attempts = _ATTEMPTS
    while (holder := holder_of(folder)) is not None:
        attempts -= 1
        if not attempts:
            raise ExperimentLockedError(refusal(folder, holder))
        time.sleep(_PAUSE_SECONDS)


def _open_either(folder: Path, file: LockFile, whole: LockFile | None) -> None:
    """Lock ``file``; or ``whole``, the folder, where the disk has no room for a file."""
    for attempt in range(_ATTEMPTS):
        if attempt:  # a dying process, or one that only looks, releases it in a moment
            time.sleep(_PAUSE_SECONDS)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if file.open_locked() and is_free(folder):
                return
        except OSError as error:
            if whole is None or error.errno not in _NO_ROOM:
                raise
            # A process that makes the file looks for this lock: one of the two is seen.
            is_opened = whole.open_locked(folder=True) and whole.is_exclusive
            if is_opened and not os.path.lexists(file.path):
                return
            whole.close()
        file.close()
    raise ExperimentLockedError(refusal(folder, _read(file.path) or UNKNOWN))


def _sign(file: LockFile, *, is_needed: bool) -> None:
    """Write the holder into ``file``; only other machines need it where the disk has locks."""
    try:
        file.write(json.dumps(asdict(Holder.this_process())).encode())
    except OSError as error:
        if is_needed or error.errno not in _NO_ROOM:
            raise


def _take_over(folder: Path, file: LockFile) -> None:
    earlier = Holder.from_json(file.read())
    if earlier is None:
        return
    reason = earlier.gone_because(_silence(folder, file.modified()))
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


def _silence(folder: Path, modified: float) -> float:
    """Return the seconds since the last sign of life, by the clock of the file system."""
    probe = folder / f"{LOCK_NAME}.{os.getpid()}-{uuid.uuid4().hex[:12]}.partial"
    try:
        probe.touch(exist_ok=False)
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()  # the folder is read-only: use the clock of this machine
    finally:
        with suppress(OSError):
            probe.unlink()
    return now - modified


def _read(path: Path) -> Holder | None:
    try:
        return Holder.from_json(read_small(path, MAX_RECORD_BYTES))
    except OSError:
        return None
