"""Durable bytes: atomic commits, objects shared by content, verified reads.

Layout of the directory::

    checkpoint_task0_epoch0_batch99.pt    a sealed checkpoint; its appearance is the commit
    checkpoint_task0_...pt.branch0        a retired one, see `plora_cl.checkpoint.store.branches`
    objects/<sha256>.safetensors          immutable, shared by checkpoints

A commit is: objects (write, flush, rename), flush ``objects/``, checkpoint (write, flush, rename),
flush the directory. Removal is the reverse. A crash in between leaves every earlier checkpoint
whole, and files that nothing refers to; see `plora_cl.checkpoint.store.retention`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from plora_cl.checkpoint.disk.errors import naming, reading, writing
from plora_cl.checkpoint.disk.filesystem import Filesystem, write_durably
from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.format.naming import Position, checkpoint_name, parse_name, parse_retired
from plora_cl.checkpoint.format.pickle_gate import require_harmless_pickle
from plora_cl.checkpoint.store.object_store import ObjectFolder
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError


@dataclass(frozen=True, slots=True, order=True)
class CheckpointEntry:
    """A committed checkpoint; entries are ordered as training is.

    Attributes:
        position: The last batch before it.
        path: Of its file.
        branch: The branch it was retired from; None where it is not retired.
    """

    position: Position
    path: Path = field(compare=False)
    branch: int | None = field(default=None, compare=False)

    @classmethod
    def at(cls, path: str | Path) -> CheckpointEntry:
        """Return the entry of the file ``path``, which may be a retired checkpoint.

        Raises:
            CheckpointNotFoundError: It is not named as checkpoints are.
        """
        path = Path(path)
        name, branch = parse_retired(path.name) or (path.name, None)
        position = parse_name(name)
        if position is None:
            raise CheckpointNotFoundError(
                f"{path} is not the name of a checkpoint; expected, for instance, "
                "checkpoint_task0_epoch1_batch99.pt"
            )
        return cls(position, path, branch)

    @property
    def name(self) -> str:
        """Its file name where it is not retired."""
        return checkpoint_name(*self.position)


class CheckpointStore:
    """The checkpoints of one experiment. One process, and one thread at a time, may write.

    Args:
        directory: Of the checkpoints, made at the first write; or an experiment folder that has a
            folder ``checkpoints``.
        filesystem: What performs the operations; the local disk by default.
    """

    def __init__(self, directory: str | Path, filesystem: Filesystem | None = None) -> None:
        self.directory = directory = _folder_of_checkpoints(Path(directory))
        self.filesystem: Filesystem = filesystem or Filesystem()
        self.objects = ObjectFolder(directory / "objects", self.filesystem)

    def commit(self, name: str, data: bytes, manifest: Manifest | None = None) -> CheckpointEntry:
        """Make the sealed checkpoint ``data`` durable under ``name``, replacing an earlier one.

        Args:
            name: Of the file.
            data: Its bytes.
            manifest: The manifest in ``data``; read from there by default.

        Raises:
            CheckpointError: The disk refused, ``name`` is not the name of a checkpoint, or an
                object that ``data`` refers to is not in the store. Earlier checkpoints stay.
        """
        entry = CheckpointEntry.at(self.directory / name)
        manifest = manifest or sealed_zip.manifest_of(io.BytesIO(data))
        with writing(entry.path, len(data)):
            for label, ref in manifest.objects.items():
                if not self.objects.has(ref):
                    raise CheckpointError(
                        f"{entry.path} was not written: object {label!r}, {ref.sha256}, is not in "
                        f"{self.objects.directory}"
                    )
            self.objects.make_directories()
            self.objects.sync()
            write_durably(self.filesystem, entry.path, data)
        self.objects.committed(manifest.objects.values())
        return entry

    def entries(self) -> list[CheckpointEntry]:
        """Return the committed checkpoints in the order of training, never of modification times.

        Raises:
            CheckpointError: The directory cannot be listed.
        """
        names = filter(parse_name, self.names(self.directory))
        return sorted(CheckpointEntry.at(self.directory / name) for name in names)

    def retired(self) -> list[CheckpointEntry]:
        """Return the retired checkpoints, in the order of training.

        Raises:
            CheckpointError: The directory cannot be listed.
        """
        names = filter(parse_retired, self.names(self.directory))
        entries = (CheckpointEntry.at(self.directory / name) for name in names)
        return sorted(entries, key=lambda entry: (entry.position, entry.branch))

    def everything(self) -> list[CheckpointEntry]:
        """Return every checkpoint, retired ones last: all that may refer to objects.

        Raises:
            CheckpointError: The directory cannot be listed.
        """
        return [*self.entries(), *self.retired()]

    def holds(self, entry: CheckpointEntry) -> bool:
        """Tell whether ``entry`` is a file of this store."""
        return entry.path.parent.resolve() == self.directory.resolve()

    @contextmanager
    def opened(self, entry: CheckpointEntry) -> Iterator[BinaryIO]:
        """Open the file of a checkpoint; errors name it.

        Raises:
            CheckpointNotFoundError: It does not exist.
            CheckpointError: The disk refused.
            TypeError: ``entry`` is something else, such as a path.
        """
        if not isinstance(entry, CheckpointEntry):
            raise TypeError(
                f"{entry!r} is a {type(entry).__name__}; expected a CheckpointEntry: one of "
                "entries(), or CheckpointEntry.at(path)"
            )
        with (
            reading(entry.path, missing=CheckpointNotFoundError),
            naming(entry.path),
            self.filesystem.open(entry.path) as file,
        ):
            yield file

    def read(self, entry: CheckpointEntry) -> bytes:
        """Return the bytes of a checkpoint, every one of them verified.

        Raises:
            CheckpointNotFoundError: It does not exist.
            CorruptCheckpointError: It is damaged.
            IncompatibleCheckpointError: It was written by a newer version of the format.
            CheckpointError: The disk refused.
        """
        data = self.read_unverified(entry)
        with naming(entry.path):
            sealed_zip.open_sealed(data)
        return data

    def read_unverified(self, entry: CheckpointEntry) -> bytes:
        """Return the bytes of a checkpoint for a caller that verifies them, as `decode` does.

        Raises:
            CheckpointNotFoundError: It does not exist.
            CorruptCheckpointError: It does not end in a seal.
            IncompatibleCheckpointError: It was written by a newer version of the format.
            CheckpointError: The disk refused.
        """
        with self.opened(entry) as file:
            sealed_zip.require_seal(file)  # a huge file without a seal is not worth its memory
            file.seek(0)
            return file.read()

    def manifest(self, entry: CheckpointEntry) -> Manifest:
        """Return the manifest of a checkpoint, itself verified, without reading the rest.

        Raises:
            CheckpointNotFoundError: It does not exist.
            CorruptCheckpointError: It is damaged.
            IncompatibleCheckpointError: It was written by a newer version of the format.
            CheckpointError: The disk refused.
        """
        with self.opened(entry) as file:
            return sealed_zip.manifest_of(file)

    def verify(self, entry: CheckpointEntry) -> Manifest:
        """Verify every byte of a checkpoint in constant memory; return its manifest.

        The objects it refers to are not read; see `ObjectFolder.verify`.

        Raises:
            CheckpointNotFoundError: It does not exist.
            CorruptCheckpointError: It is damaged, or was made to deceive.
            IncompatibleCheckpointError: It was written by a newer version of the format.
            CheckpointError: The disk refused.
        """
        with self.opened(entry) as file:
            manifest = sealed_zip.verified_manifest_of(file)
            require_harmless_pickle(file)
            return manifest

    @contextmanager
    def unless_removed(self, entry: CheckpointEntry) -> Iterator[None]:
        """Report ``entry`` as not found, not as damaged, where it is removed while it is read.

        A run removes checkpoints that it no longer needs, and the objects that only they need.

        Raises:
            CheckpointNotFoundError: That happened within the ``with`` block.
        """
        try:
            yield
        except CorruptCheckpointError as error:
            if self.size(entry.path) is not None:
                raise
            raise CheckpointNotFoundError(f"{entry.path} was removed while it was read") from error

    def delete(self, entries: Iterable[CheckpointEntry]) -> None:
        """Remove checkpoints; durable on return.

        `plora_cl.checkpoint.store.retention.collect_garbage` removes what only they referred to.

        Raises:
            CheckpointError: The disk refused.
        """
        self.remove((entry.path for entry in entries), self.directory)

    def remove(self, paths: Iterable[Path], *directories: Path) -> None:
        """Remove files, and flush their directories and ``directories``.

        Raises:
            CheckpointError: The disk refused.
        """
        flushed = dict.fromkeys(directories)
        for path in paths:
            with writing(path):
                self.filesystem.remove(path)
            flushed[path.parent] = None
        for directory in flushed:
            with writing(directory):
                self.filesystem.sync_directory(directory)

    def size(self, path: Path) -> int | None:
        """Return the bytes of a regular file of the experiment; None where there is none.

        Raises:
            CheckpointError: The disk refused.
        """
        with reading(path):
            return self.filesystem.size(path)

    def names(self, directory: Path) -> tuple[str, ...]:
        """Return the names in a directory of the experiment, sorted; none where there is none.

        Raises:
            CheckpointError: The disk refused.
        """
        with reading(directory):
            return self.filesystem.names(directory)


def _folder_of_checkpoints(path: Path) -> Path:
    inside = path / "checkpoints"
    return inside if path.name != "checkpoints" and inside.is_dir() else path
