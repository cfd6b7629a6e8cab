"""The file operations that durability is made of, and how they make a file durable."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

ReadableBytes: TypeAlias = bytes | bytearray | memoryview

_PARTIAL_PREFIX, _PARTIAL_SUFFIX = ".", ".partial"
_NOT_OURS_TO_READ = (errno.EACCES, errno.EPERM)


class Filesystem(Protocol):
    """Every operation a store performs on a disk; tests put one in place that fails or forgets.

    All of them raise `OSError` where the disk refuses.
    """

    def write(self, path: Path, data: ReadableBytes) -> None:
        """Create ``path``, which must not exist, with ``data`` and flush its content."""
        ...

    def write_chunks(self, path: Path, chunks: Iterable[ReadableBytes]) -> None:
        """Write ``chunks``, one after the other, like `write`; what they raise ends it."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Atomically give ``source`` the name ``target`` in the same directory, replacing it."""
        ...

    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        """Give ``file``, opened from ``source``, the name ``target`` too; flush its content.

        Refused where it belongs to another user, or has lost the name ``source``; a ``target`` that
        was new may be there nevertheless, and is the caller's to remove.
        """
        ...

    def sync_directory(self, path: Path) -> None:
        """Flush the names in directory ``path``."""
        ...

    def remove(self, path: Path) -> None:
        """Remove the file ``path``."""
        ...

    def make_directory(self, path: Path) -> None:
        """Make directory ``path`` and missing parents durable; existing ones included."""
        ...

    def open(self, path: Path) -> BinaryIO:
        """Open the regular file ``path`` for reading; a symbolic link is refused."""
        ...

    def names(self, path: Path) -> tuple[str, ...]:
        """Return the names in directory ``path``, sorted; none where there is no directory."""
        ...

    def size(self, path: Path) -> int | None:
        """Return the bytes of the regular file ``path``; None where there is none."""
        ...


class LocalFilesystem:
    """`Filesystem` on a POSIX disk."""

    def write(self, path: Path, data: ReadableBytes) -> None:
        """Create ``path``, which must not exist, with ``data`` and flush its content."""
        self.write_chunks(path, (data,))

    def write_chunks(self, path: Path, chunks: Iterable[ReadableBytes]) -> None:
        """Write ``chunks``, one after the other, like `write`; what they raise ends it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            for chunk in chunks:
                rest = memoryview(chunk).cast("B")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Atomically give ``source`` the name ``target`` in the same directory, replacing it."""
        source.replace(target)

    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        """Give ``file``, opened from ``source``, the name ``target`` too; flush its content."""
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user", str(source))
        os.link(source, target, follow_symlinks=False)
        if not os.path.samestat(status, target.lstat()):
            raise OSError(errno.ESTALE, "it was replaced meanwhile", str(source))
        os.fsync(file.fileno())

    def sync_directory(self, path: Path) -> None:
        """Flush the names in directory ``path``."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove the file ``path``."""
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make directory ``path`` and missing parents durable; existing ones included."""
        path = path.absolute()
        if path.is_dir():
            # A process that was killed may have made it without flushing its name.
            try:
                self.sync_directory(path.parent)
            except OSError as error:
                if error.errno not in _NOT_OURS_TO_READ:
                    raise
            return
        self.make_directory(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_directory(path.parent)

    def open(self, path: Path) -> BinaryIO:
        """Open the regular file ``path`` for reading; a symbolic link is refused."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")

    def names(self, path: Path) -> tuple[str, ...]:
        """Return the names in directory ``path``, sorted; none where there is no directory."""
        try:
            return tuple(sorted(child.name for child in path.iterdir()))
        except FileNotFoundError:
            return ()

    def size(self, path: Path) -> int | None:
        """Return the bytes of the regular file ``path``; None where there is none."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None


def write_durably(filesystem: Filesystem, path: Path, data: ReadableBytes) -> None:
    """Put ``data`` at ``path``: all of it or nothing, and on return it survives a power cut.

    Raises:
        OSError: The disk refused; what was at ``path`` before is still there, or, where only the
            last flush failed, the new content is there without a promise to stay.
    """
    write_unsynced(filesystem, path, data)
    filesystem.sync_directory(path.parent)


def write_unsynced(filesystem: Filesystem, path: Path, data: ReadableBytes) -> None:
    """Put ``data`` at ``path`` like `write_durably`, but leave flushing the name to the caller.

    Raises:
        OSError: The disk refused; what was at ``path`` before is still there.
    """
    partial = partial_path(path)
    try:
        filesystem.write(partial, data)
        filesystem.rename(partial, path)
    except Exception:
        with suppress(OSError):
            filesystem.remove(partial)
        raise


def partial_path(path: Path) -> Path:
    """Return a new name beside ``path`` for a write that is not finished."""
    return path.with_name(
        f"{_PARTIAL_PREFIX}{path.name}.{os.getpid()}-{uuid.uuid4().hex[:12]}{_PARTIAL_SUFFIX}"
    )


def is_partial(name: str) -> bool:
    """Tell whether a file name is that of a write that never finished."""
    return name.startswith(_PARTIAL_PREFIX) and name.endswith(_PARTIAL_SUFFIX)
