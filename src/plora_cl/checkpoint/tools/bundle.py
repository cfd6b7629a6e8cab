"""One checkpoint as one file, to move it to another machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from plora_cl.checkpoint.disk.errors import naming, reading
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef, verified
from plora_cl.checkpoint.format.sealed_zip import open_sealed
from plora_cl.checkpoint.store.object_store import ObjectFolder
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.checkpoint.store.store import CheckpointEntry
from plora_cl.checkpoint.tools.bundle_archive import (
    LONGEST_CONFIG,
    BundleReader,
    Contents,
    archived,
    object_name,
)
from plora_cl.checkpoint.tools.new_experiment import (
    CONFIG,
    CompleteCheckpoint,
    Verified,
    create_experiment,
    put,
    require_new_file,
)
from plora_cl.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    IncompatibleCheckpointError,
)

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
    refs = whole.checkpoint.manifest.refs
    if len(text) > LONGEST_CONFIG:
        raise IncompatibleCheckpointError(
            f"{source.path}: its settings take {len(text)} bytes as {CONFIG}, and no "
            f"import reads more than {LONGEST_CONFIG}; copy the folder of the experiment instead"
        )
    contents = Contents(
        checkpoint=source.name,
        checkpoint_bytes=len(whole.checkpoint.data),
        config_bytes=len(text),
        run_log_bytes=whole.run_log_bytes,
        objects=[ref.to_plain() for ref in refs],
    )
    objects = map(whole.objects.chunks, refs)
    members = [[text], whole.run_log_chunks(), *objects, [whole.checkpoint.data]]
    with whole.unless_removed():
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
        CheckpointNotFoundError: There is no such file.
        CorruptCheckpointError: It is damaged, or was made to deceive.
        IncompatibleCheckpointError: A later version of the library wrote it.
        ExperimentExistsError: ``folder`` holds something else.
        CheckpointError: The disk refused.
    """
    disk = filesystem or _disk
    with (
        reading(file, missing=CheckpointNotFoundError),
        _disk.open(file) as opened,
        naming(file),
    ):
        bundle = BundleReader(opened)
        name = bundle.contents.checkpoint
        data = b"".join(bundle.chunks(f"checkpoints/{name}"))
        checkpoint = Verified(name, data, open_sealed(data))
        if checkpoint.manifest.refs != bundle.contents.refs:
            raise CorruptCheckpointError("its objects are not those of its checkpoint")

        def copy_object(objects: ObjectFolder, ref: ObjectRef) -> None:
            member = object_name(ref)
            put(disk, objects.path(ref), verified(bundle.chunks(member), ref, member))

        return create_experiment(
            folder,
            disk,
            checkpoint,
            lineage={"bundle": str(file.resolve()), "sha256": bundle.digest},
            config=config(checkpoint.manifest),
            run_log=bundle.chunks(RUN_LOG),
            add_object=copy_object,
        )
