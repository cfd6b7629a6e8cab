"""A new experiment folder, made of a checkpoint from elsewhere.

`lineage.json` is written first and the checkpoint last. Until then the folder is unfinished, and
the same command completes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from plora_cl.bounded_reading import parse_json, read_small
from plora_cl.checkpoint.disk.errors import naming, reading, writing
from plora_cl.checkpoint.disk.filesystem import (
    Filesystem,
    ReadableBytes,
    is_partial,
    write_durably,
)
from plora_cl.checkpoint.disk.lock import LOCK_NAME
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES, ObjectRef
from plora_cl.checkpoint.format.naming import parse_name
from plora_cl.checkpoint.store.run_log import (
    LINEAGE,
    run_log_at,
    run_log_position,
)
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.inventory import distinct
from plora_cl.errors import CheckpointError, CorruptCheckpointError, ExperimentExistsError
from plora_cl.wording import counted

_CHUNK = 1 << 20
_RECORDS = ("config.yaml", LINEAGE, LOCK_NAME)
log = logging.getLogger(__name__)


def claim(filesystem: Filesystem, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Make ``folder``, or take over one that an earlier try left unfinished; write its lineage.

    The caller holds its lock: two processes in one folder would leave the files of both.

    Raises:
        ExperimentExistsError: It holds checkpoints, or files of something else.
        CheckpointError: The disk refused.
    """
    with reading(folder):
        checkpoints = [n for n in filesystem.names(folder / "checkpoints") if parse_name(n)]
        names = [
            name
            for name in filesystem.names(folder)
            if not is_partial(name) and name != LOCK_NAME  # held by the caller
        ]
    if checkpoints:
        raise ExperimentExistsError(
            f"{folder} already holds {counted(len(checkpoints), 'checkpoint')}: choose a new folder"
        )
    if names and LINEAGE not in names:
        raise ExperimentExistsError(
            f"{folder} already holds {names[0]} and is not an unfinished copy: choose a new folder"
        )
    text = json.dumps(lineage, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    put(filesystem, folder / LINEAGE, text.encode())


def lineage_of(folder: Path) -> dict[str, Any] | None:
    """Return where an experiment comes from; None for one that started afresh.

    Raises:
        CorruptCheckpointError: The lineage is malformed.
        CheckpointError: The disk refused.
    """
    path = folder / LINEAGE
    with reading(path):
        try:
            text = read_small(path, MAX_MANIFEST_BYTES)
        except FileNotFoundError:
            return None
    try:
        lineage = parse_json(text)
    except ValueError as error:
        raise CorruptCheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(lineage, dict):
        raise CorruptCheckpointError(f"{path} is not a JSON object")
    return lineage


def require_new_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a ``path`` that an export must not write to.

    Raises:
        CheckpointError: It exists and may not be replaced, belongs to an experiment, or its folder
            does not exist.
    """
    with reading(path):
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a file: name the file to write")
        if not path.parent.is_dir():
            raise CheckpointError(f"{path.parent} is not a folder: make it, or name another one")
        if _is_of_an_experiment(path):
            raise CheckpointError(
                f"{path} is where an experiment keeps its own files: name a file elsewhere"
            )
        if os.path.lexists(path) and not overwrite:
            raise CheckpointError(
                f"{path} already exists: choose another file, or replace it with --overwrite"
            )


def _is_of_an_experiment(path: Path) -> bool:
    """Tell whether an experiment has, or would read, a file of its own at ``path``."""
    folder = path.parent.resolve()
    if path.name in _RECORDS:
        return (folder / "checkpoints").is_dir()
    near = folder.parent if folder.name == "objects" else folder
    return near.name in ("checkpoints", "results") and (near.parent / "checkpoints").is_dir()


def put(filesystem: Filesystem, path: Path, data: ReadableBytes | Iterable[ReadableBytes]) -> None:
    """Write ``data``, or chunks of it, durably to ``path``, all or nothing; make its folder.

    Raises:
        CheckpointError: The disk refused; or what iterating ``data`` raises.
    """
    with writing(path):
        filesystem.make_directory(path.parent)
        write_durably(filesystem, path, data)


@contextmanager
def committing(filesystem: Filesystem, checkpoint: Path) -> Iterator[None]:
    """Remove ``checkpoint`` where making it durable fails, so that the command can be retried.

    Only its last flush failed; while the lock is held no run has resumed from it.
    """
    try:
        yield
    except CheckpointError:
        with suppress(OSError):
            filesystem.remove(checkpoint)
        raise


def chunks_of(file: BinaryIO, count: int, what: str) -> Iterator[bytes]:
    """Yield the next ``count`` bytes of ``file`` in pieces of bounded size.

    Raises:
        CorruptCheckpointError: The file ends earlier; the message names ``what``.
    """
    while count:
        chunk = file.read(min(count, _CHUNK))
        if not chunk:
            raise CorruptCheckpointError(f"{what} ends {count} bytes too early")
        count -= len(chunk)
        yield chunk


def verified(chunks: Iterable[bytes], ref: ObjectRef, what: str) -> Iterator[bytes]:
    """Yield ``chunks`` and make sure at the end that they are the object ``ref``.

    Raises:
        CorruptCheckpointError: They are not; the message names ``what``.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != ref.sha256:
        raise CorruptCheckpointError(f"{what} is damaged: it does not match its digest")


class CompleteCheckpoint:
    """A checkpoint with all that an experiment needs to resume from it.

    Args:
        entry: The checkpoint; every byte of its file is verified.
        disk: What performs the operations.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        CorruptCheckpointError: It is damaged, or no run can resume from it.
        CheckpointError: The disk refused.

    Attributes:
        store: Its store.
        data: The bytes of its file.
        manifest: Its manifest.
        refs: The objects it refers to, without repetitions.
        run_log_bytes: Length of the run log as it stands for this checkpoint.
    """

    def __init__(self, entry: CheckpointEntry, disk: Filesystem) -> None:
        self._disk = disk
        self.store = CheckpointStore(entry.path.parent, disk)
        self.data = self.store.read(entry)
        with naming(entry.path):
            self._position = run_log_position(self.data)
        self.manifest = self.store.manifest(entry)
        self.refs = distinct(self.manifest.objects.values())
        self._run_log = run_log_at(disk, entry.path.parent.parent, self._position)
        self.run_log_bytes = min(self._position["bytes"], self.store.size(self._run_log) or 0)

    def object_chunks(self, ref: ObjectRef) -> Iterator[bytes]:
        """Yield the bytes of an object, verified once the last one was taken.

        Raises:
            CorruptCheckpointError: It is missing or damaged.
            CheckpointError: The disk refused.
        """
        path = self.store.objects.path(ref)
        with reading(path), self._disk.open(path) as file:
            size = self._disk.size(path)
            if size != ref.bytes:
                raise CorruptCheckpointError(f"{path} has {size} bytes, expected {ref.bytes}")
            yield from verified(chunks_of(file, ref.bytes, str(path)), ref, str(path))

    def run_log_chunks(self) -> Iterator[bytes]:
        """Yield the run log up to the checkpoint.

        A log that was lost or edited is reported, and what is left of it is yielded: training does
        not depend on it, and the run reports it too when it resumes.
        """
        digest, path = hashlib.sha256(), self._run_log
        if self.run_log_bytes:
            with reading(path), self._disk.open(path) as file:
                for chunk in chunks_of(file, self.run_log_bytes, str(path)):
                    digest.update(chunk)
                    yield chunk
        if digest.hexdigest() != self._position["sha256"]:
            log.warning("%s is not the log of the checkpoint: it was lost or edited", path)
