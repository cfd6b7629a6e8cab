"""A new experiment folder, made of a checkpoint from elsewhere.

`lineage.json` is written first and the checkpoint last. Until then the folder is unfinished, and
the same command completes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.bounded_reading import chunks_of, parse_json, read_small
from plora_cl.checkpoint.disk.errors import naming, reading, writing
from plora_cl.checkpoint.disk.filesystem import (
    Content,
    Filesystem,
    is_partial,
    write_durably,
)
from plora_cl.checkpoint.disk.lock import LOCK_NAME
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES, Manifest, ObjectRef
from plora_cl.checkpoint.format.naming import parse_name
from plora_cl.checkpoint.format.sealed_zip import open_sealed
from plora_cl.checkpoint.store.object_store import ObjectFolder
from plora_cl.checkpoint.store.run_log import (
    LINEAGE,
    RUN_LOG,
    run_log_at,
    run_log_position,
)
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CorruptCheckpointError, ExperimentExistsError
from plora_cl.wording import counted

CONFIG = "config.yaml"
_RECORDS = (CONFIG, LINEAGE, LOCK_NAME)
log = logging.getLogger(__name__)


class Verified(NamedTuple):
    """A checkpoint file whose every byte was verified.

    Attributes:
        name: Of the file.
        data: Its bytes.
        manifest: The manifest in them.
    """

    name: str
    data: bytes
    manifest: Manifest


def create_experiment(
    folder: Path,
    filesystem: Filesystem,
    checkpoint: Verified,
    *,
    lineage: Mapping[str, Any],
    config: str,
    run_log: Iterable[bytes],
    add_object: Callable[[ObjectFolder, ObjectRef], object],
) -> CheckpointEntry:
    """Make ``folder`` an experiment that resumes from ``checkpoint``, or complete an earlier try.

    The caller holds the lock of ``folder``: two processes in it would leave the files of both.

    Args:
        folder: Of the experiment.
        filesystem: What performs the operations in it.
        checkpoint: What it resumes from.
        lineage: Content of ``lineage.json``.
        config: Content of ``config.yaml``.
        run_log: The run log up to the checkpoint, in pieces.
        add_object: Puts an object that the checkpoint refers to into a folder, durably.

    Raises:
        ExperimentExistsError: ``folder`` holds checkpoints, or files of something else.
        CheckpointError: The disk refused; or what ``run_log`` and ``add_object`` raise.
    """
    _claim(filesystem, folder, lineage)
    put(filesystem, folder / CONFIG, config.encode())
    put(filesystem, folder / RUN_LOG, run_log)
    store = CheckpointStore(folder / "checkpoints", filesystem)
    with writing(store.objects.directory):
        store.objects.make_directories()
    for ref in checkpoint.manifest.refs:
        add_object(store.objects, ref)
    try:
        return store.commit(checkpoint.name, checkpoint.data, checkpoint.manifest)
    except CheckpointError:
        # Where only its last flush failed, the file is there. No run has resumed from it: the
        # caller holds the lock.
        with suppress(OSError):
            filesystem.remove(store.directory / checkpoint.name)
        raise


def _claim(filesystem: Filesystem, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Make ``folder``, or take over one that an earlier try left unfinished; write its lineage."""
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


def put(filesystem: Filesystem, path: Path, data: Content) -> None:
    """Write ``data``, or chunks of it, durably to ``path``, all or nothing; make its folder.

    Raises:
        CheckpointError: The disk refused; or what iterating ``data`` raises.
    """
    with writing(path):
        filesystem.make_directory(path.parent)
        write_durably(filesystem, path, data)


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
        checkpoint: Its file.
        objects: Where the objects are that it refers to.
        run_log_bytes: Length of the run log as it stands for this checkpoint.
    """

    def __init__(self, entry: CheckpointEntry, disk: Filesystem) -> None:
        self._disk, self._entry = disk, entry
        self._store = store = CheckpointStore(entry.path.parent, disk)
        self.objects = store.objects
        data = store.read_unverified(entry)
        with naming(entry.path):
            self.checkpoint = Verified(entry.name, data, open_sealed(data))
            self._position = run_log_position(data)
        self._run_log = run_log_at(disk, entry.path.parent.parent, self._position)
        self.run_log_bytes = min(self._position["bytes"], store.size(self._run_log) or 0)

    def unless_removed(self) -> AbstractContextManager[None]:
        """See `CheckpointStore.unless_removed`."""
        return self._store.unless_removed(self._entry)

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
