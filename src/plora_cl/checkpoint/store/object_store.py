"""The folder of immutable files that checkpoints share, each named by its SHA-256."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from plora_cl.bounded_reading import chunks_of
from plora_cl.checkpoint.disk.errors import reading, writing
from plora_cl.checkpoint.disk.filesystem import (
    Filesystem,
    ReadableBytes,
    is_partial,
    write_unsynced,
)
from plora_cl.checkpoint.format.manifest import ObjectRef, verified
from plora_cl.checkpoint.format.naming import is_sha256
from plora_cl.checkpoint.store.hard_links import link_from_sibling
from plora_cl.errors import CheckpointError, CorruptCheckpointError

log = logging.getLogger(__name__)


class ObjectFolder:
    """``objects/<sha256>.safetensors``: written once, verified at each read, never changed.

    Args:
        directory: In the folder of the checkpoints; made when needed.
        filesystem: What performs the operations.
    """

    def __init__(self, directory: Path, filesystem: Filesystem) -> None:
        self.directory = directory
        self._fs = filesystem
        self._intact: set[str] = set()
        self._uncommitted: set[str] = set()
        self._sought: set[str] = set()
        # Names that an earlier process left may never have been flushed.
        self._synced = False
        self._has_directories = False

    def put(self, data: ReadableBytes) -> ObjectRef:
        """Store ``data`` unless it is present; it is durable once a commit refers to it.

        Every byte of an object from an earlier process is verified the first time, so that no new
        checkpoint refers to a damaged one. A large object that a sibling experiment has, intact, is
        linked from there.

        Raises:
            CheckpointError: The disk refused.
        """
        ref = ObjectRef.of(data)
        self._ensure(ref, lambda: data)
        return ref

    def ensure(self, ref: ObjectRef, make: Callable[[], ReadableBytes]) -> None:
        """Store an object unless it is present, as `put` does, without its bytes where it is.

        Args:
            ref: The object.
            make: Returns its bytes; called only where they have to be written.

        Raises:
            CheckpointError: The disk refused, or ``make`` returned something else.
        """

        def make_that() -> ReadableBytes:
            data = make()
            if ObjectRef.of(data) != ref:
                raise CheckpointError(
                    f"{self.path(ref)} was not written: its tensors changed after they were "
                    "hashed; expected tensors that stay constant"
                )
            return data

        self._ensure(ref, make_that)

    def _ensure(self, ref: ObjectRef, make: Callable[[], ReadableBytes]) -> None:
        path = self.path(ref)
        self._uncommitted.add(ref.sha256)
        with writing(path, ref.bytes):
            if self.has(ref) and (ref.sha256 in self._intact or self._is_intact(ref)):
                return
            self.make_directories()
            self._synced = False
            if not self._shares(path, ref):
                write_unsynced(self._fs, path, make())
        self._intact.add(ref.sha256)

    def get(self, ref: ObjectRef) -> bytes:
        """Return the bytes of an object, verified.

        Raises:
            CorruptCheckpointError: It is missing or damaged.
            CheckpointError: The disk refused.
        """
        with self._opened(ref) as file:
            (data,) = verified([file.read()], ref, str(self.path(ref)))
        return data

    def chunks(self, ref: ObjectRef) -> Iterator[bytes]:
        """Yield the bytes of an object in pieces; they are verified once the last one was taken.

        Raises:
            CorruptCheckpointError: It is missing or damaged.
            CheckpointError: The disk refused.
        """
        what = str(self.path(ref))
        with self._opened(ref) as file:
            yield from verified(chunks_of(file, ref.bytes, what), ref, what)

    def verify(self, ref: ObjectRef) -> None:
        """Make sure that every byte of an object is what was written, in constant memory.

        Raises:
            CorruptCheckpointError: It is missing or damaged.
            CheckpointError: The disk refused.
        """
        for _ in self.chunks(ref):
            pass

    def path(self, ref: ObjectRef) -> Path:
        """Return where an object is, or would be."""
        return self.directory / ref.file_name

    def has(self, ref: ObjectRef) -> bool:
        """Tell whether a file of the right name and size exists; may raise `OSError`."""
        return self._fs.size(self.path(ref)) == ref.bytes

    def make_directories(self) -> None:
        """Make the folder, its parent and grandparent durable; may raise `OSError`.

        Raises:
            CheckpointError: The folder is a symbolic link.
        """
        self._require_own()
        if not self._has_directories:
            for directory in (*reversed(self.directory.parents[:2]), self.directory):
                self._fs.make_directory(directory)
            self._has_directories = True

    def sync(self) -> None:
        """Make the names of all objects durable; may raise `OSError`."""
        if not self._synced:
            self._fs.sync_directory(self.directory)
            self._synced = True

    def committed(self, refs: Iterable[ObjectRef]) -> None:
        """Note that a durable checkpoint refers to ``refs``."""
        self._uncommitted -= {ref.sha256 for ref in refs}

    def unused(self, live: Iterable[str]) -> list[Path]:
        """Return the objects whose digest is not in ``live``.

        An object stored through this instance counts as used until a commit has referred to it.

        Raises:
            CheckpointError: The directory cannot be listed, or is a symbolic link.
        """
        used = {*live, *self._uncommitted, None}
        with reading(self.directory):
            self._require_own()
            names = self._fs.names(self.directory)
        return [self.directory / name for name in names if _digest_in(name) not in used]

    def unfinished(self) -> list[Path]:
        """Return unfinished writes; none where the folder is a link to that of another store.

        Raises:
            CheckpointError: The directory cannot be listed.
        """
        with reading(self.directory):
            names = [] if self.directory.is_symlink() else self._fs.names(self.directory)
        return [self.directory / name for name in names if is_partial(name)]

    def remove(self, path: Path) -> None:
        """Remove a file that `unused` or `unfinished` returned; may raise `OSError`."""
        self._intact.discard(path.stem)
        self._fs.remove(path)

    def _require_own(self) -> None:
        if self.directory.is_symlink():
            raise CheckpointError(
                f"{self.directory} is a symbolic link: other experiments may need objects in its "
                "target; to use another disk, link the whole folder checkpoints/"
            )

    def _shares(self, path: Path, ref: ObjectRef) -> bool:
        # Once: a failed flush must not be tried again on the same file.
        if ref.sha256 in self._sought:
            return False
        self._sought.add(ref.sha256)
        return link_from_sibling(self._fs, path, ref)

    @contextmanager
    def _opened(self, ref: ObjectRef) -> Iterator[BinaryIO]:
        """Open an object of the right size; it counts as intact where the caller raises nothing."""
        path = self.path(ref)
        self._intact.discard(ref.sha256)
        with reading(path), self._fs.open(path) as file:
            size = self._fs.size(path)
            if size != ref.bytes:
                raise CorruptCheckpointError(f"{path} has {size} bytes, expected {ref.bytes}")
            yield file
        self._intact.add(ref.sha256)

    def _is_intact(self, ref: ObjectRef) -> bool:
        try:
            self.verify(ref)
        except CheckpointError as error:
            log.warning("%s; it is written again", error)
            return False
        return True


def _digest_in(name: str) -> str | None:
    digest, _, ending = name.partition(".")
    return digest if ending == "safetensors" and is_sha256(digest) else None
