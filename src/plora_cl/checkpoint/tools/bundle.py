"""One checkpoint as one file, to move it to another machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from plora_cl.checkpoint.disk.errors import naming, reading, writing
from plora_cl.checkpoint.disk.filesystem import Filesystem, partial_path
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.format.sealed_zip import verified_manifest_of
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.bundle_archive import (
    CONFIG,
    LONGEST_CONFIG,
    BundleReader,
    Contents,
    archived,
    object_name,
)
from plora_cl.checkpoint.tools.new_experiment import (
    CompleteCheckpoint,
    claim,
    committing,
    put,
    require_new_file,
    verified,
)
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError

ConfigWriter: TypeAlias = Callable[[Manifest], str]
"""Turns the manifest of a checkpoint into the text of ``config.yaml``."""

_disk = Filesystem()


def export_bundle(
    source: CheckpointEntry, out: Path, *, config: str, overwrite: bool = False
) -> int:
    """Write ``source`` with all it needs to the file ``out``; return the number of bytes.

    Args:
        source: A checkpoint; every byte of it and of its objects is verified.
        out: The file, in a folder that exists.
        config: Text of the ``config.yaml`` that goes with it.
        overwrite: An existing file is replaced once the new one is complete.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        CorruptCheckpointError: It, or an object of it, is damaged.
        IncompatibleCheckpointError: Its settings are too long for a bundle.
        CheckpointError: ``out`` exists, its folder does not, or the disk refused.
    """
    require_new_file(out, overwrite=overwrite)
    text = config.encode()
    whole = CompleteCheckpoint(source, _disk)
    if len(text) > LONGEST_CONFIG:
        raise IncompatibleCheckpointError(
            f"{source.path}: its settings take {len(text)} bytes as {CONFIG}, and no "
            f"import reads more than {LONGEST_CONFIG}; copy the folder of the experiment instead"
        )
    contents = Contents(
        checkpoint=source.name,
        checkpoint_bytes=len(whole.data),
        config_bytes=len(text),
        run_log_bytes=whole.run_log_bytes,
        objects=[ref.to_plain() for ref in whole.refs],
    )
    objects = (whole.object_chunks(ref) for ref in whole.refs)
    members = [[text], whole.run_log_chunks(), *objects, [whole.data]]
    put(_disk, out, archived(contents, members))
    return out.stat().st_size


def import_bundle(
    file: Path, folder: Path, *, config: ConfigWriter, filesystem: Filesystem | None = None
) -> CheckpointEntry:
    """Make ``folder`` an experiment that resumes from the checkpoint in ``file``.

    Args:
        file: What `export_bundle` wrote; every byte is verified before the first is used.
        folder: Of the new experiment.
        config: Turns the manifest of the checkpoint into the text of its ``config.yaml``.
        filesystem: What performs the operations in ``folder``; the local disk by default.

    Raises:
        CorruptCheckpointError: It is damaged, or was made to deceive.
        IncompatibleCheckpointError: A later version of the library wrote it.
        ExperimentExistsError: ``folder`` holds something else.
        CheckpointError: The disk refused.
    """
    disk = filesystem or _disk
    with reading(file), _disk.open(file) as opened:
        with naming(file):
            bundle = BundleReader(opened)
        claim(disk, folder, {"bundle": str(file.resolve()), "sha256": bundle.digest})
        with naming(file):
            put(disk, folder / RUN_LOG, bundle.chunks(RUN_LOG))
            store = CheckpointStore(folder / "checkpoints", disk)
            with writing(store.objects.directory):
                store.objects.make_directories()
            for ref in bundle.contents.refs:
                name = object_name(ref)
                put(disk, store.objects.path(ref), verified(bundle.chunks(name), ref, name))
            return _commit(bundle, store, folder, config)


def _commit(
    bundle: BundleReader, store: CheckpointStore, folder: Path, config: ConfigWriter
) -> CheckpointEntry:
    disk, name = store.filesystem, bundle.contents.checkpoint
    entry = CheckpointEntry.at(store.directory / name)
    waiting = partial_path(entry.path)
    try:
        put(disk, waiting, bundle.chunks(f"checkpoints/{name}"))
        with reading(waiting), disk.open(waiting) as file:
            manifest = verified_manifest_of(file)
        if set(manifest.objects.values()) != set(bundle.contents.refs):
            raise CorruptCheckpointError("its objects are not those of its checkpoint")
        put(disk, folder / CONFIG, config(manifest).encode())
        with committing(disk, entry.path), writing(entry.path):
            store.objects.sync()
            disk.rename(waiting, entry.path)
            disk.sync_directory(store.directory)
    finally:
        with suppress(OSError):
            disk.remove(waiting)
    return entry
