"""File operations, and durable writes made of them."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

from plora_cl.bounded_reading import open_regular

ReadableBytes: TypeAlias = bytes | bytearray | memoryview
Content: TypeAlias = ReadableBytes | Iterable[ReadableBytes]
"""Of a file, in one piece or in several; what iterating them raises ends the write."""

_PARTIAL_PREFIX, _PARTIAL_SUFFIX = ".", ".partial"
_NOT_OURS_TO_READ = (errno.EACCES, errno.EPERM)


class Filesystem:
    """Every operation a store performs, on a POSIX disk; all raise `OSError` where it refuses.

    Tests override operations to fail or to forget.

    Args:
        require: Called before each change; raises what ends the work. In a locked folder it is
            `ExperimentLock.require_held`: operations name paths, and another process may have
            moved or replaced the folder.
    """

    require: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, require: Callable[[], object] | None = None) -> None:
        if require is not None:
            self.require = require

    def write(self, path: Path, data: Content) -> None:
        """Create ``path``, which must not exist, with ``data`` and flush its content."""
        self.require()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            for chunk in (data,) if isinstance(data, ReadableBytes) else data:
                rest = memoryview(chunk).cast("B")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Atomically give ``source`` the name ``target`` in the same directory, replacing it."""
        self.require()
        source.replace(target)

    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        """Give ``file``, opened from ``source``, the name ``target`` too; flush its content.

        Raises:
            OSError: Also where the file belongs to another user or has lost the name ``source``. A
                new ``target`` may exist nevertheless: the caller removes it.
        """
        self.require()
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
        self.require()
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make directory ``path`` and missing parents durable; existing ones included."""
        self.require()
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
        return open_regular(path, follow_links=False)

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


def write_durably(filesystem: Filesystem, path: Path, data: Content) -> None:
    """Put ``data`` at ``path``: all of it or nothing, and on return it survives a power cut.

    Args:
        filesystem: What performs the operations.
        path: The file, in a directory that exists.
        data: Its content.

    Raises:
        OSError: The disk refused; the earlier content of ``path`` is still there. Where only the
            last flush failed, the new content is there and may not survive a power cut.
    """
    write_unsynced(filesystem, path, data)
    filesystem.sync_directory(path.parent)


def write_unsynced(filesystem: Filesystem, path: Path, data: Content) -> None:
    """Put ``data`` at ``path`` like `write_durably`, but leave flushing the name to the caller.

    Raises:
        OSError: The disk refused; the earlier content of ``path`` is still there.
    """
    partial = partial_path(path)
    try:
        filesystem.write(partial, data)
        filesystem.rename(partial, path)
    except BaseException:
        with suppress(OSError):
            filesystem.remove(partial)
        raise


def partial_path(path: Path) -> Path:
    """Return a new name, in the folder of ``path``, for an unfinished write to it."""
    return path.with_name(
        f"{_PARTIAL_PREFIX}{path.name}.{os.getpid()}-{uuid.uuid4().hex[:12]}{_PARTIAL_SUFFIX}"
    )


def is_partial(name: str) -> bool:
    """Tell whether a file name is that of an unfinished write."""
    return name.startswith(_PARTIAL_PREFIX) and name.endswith(_PARTIAL_SUFFIX)
