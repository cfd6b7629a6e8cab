"""A new experiment that resumes from a checkpoint of another, with other settings.

The checkpoint is the parent's, byte for byte. `lineage.json` records the changes: they count as
accepted when the new experiment is resumed, and have the effect of any other accepted change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.store.hard_links import link_verified
from plora_cl.checkpoint.store.object_store import ObjectFolder
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.new_experiment import (
    CompleteCheckpoint,
    create_experiment,
    lineage_of,
    put,
)
from plora_cl.errors import CorruptCheckpointError


@dataclass(frozen=True, slots=True)
class Fork:
    """The result of a fork.

    Attributes:
        entry: The checkpoint that the new experiment resumes from.
        linked: Objects that share their bytes with the parent.
        copied_bytes: Bytes of objects that could not be linked and were copied.
    """

    entry: CheckpointEntry
    linked: int
    copied_bytes: int


def fork(
    source: CheckpointEntry,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    accepted: Collection[str],
    config: str,
    filesystem: Filesystem | None = None,
) -> Fork:
    """Make ``folder`` an experiment that resumes from ``source``; its checkpoint is written last.

    Args:
        source: A checkpoint; it and its objects are verified, and stay as they are.
        folder: Of the new experiment.
        settings: Every setting of the new experiment, as plain JSON.
        accepted: The changes of what is computed from here on; see `accepted_by_fork`.
        config: Text of its ``config.yaml``.
        filesystem: What performs the operations; the local disk by default.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        CorruptCheckpointError: It, or an object of it, is damaged.
        ExperimentExistsError: ``folder`` holds something else.
        CheckpointError: The disk refused.
    """
    disk = filesystem or Filesystem()
    whole = CompleteCheckpoint(source, disk)
    refs = whole.checkpoint.manifest.refs
    with whole.unless_removed():
        for ref in refs:
            whole.objects.verify(ref)
    saved = whole.checkpoint.manifest.settings
    lineage = {
        "parent": str(source.path.parent.parent.resolve()),
        "checkpoint": source.name,
        "sha256": hashlib.sha256(whole.checkpoint.data).hexdigest(),
        "changed": {
            name: {"parent": saved.get(name), "here": value}
            for name, value in settings.items()
            if saved.get(name) != value
        },
        "accepted": sorted(accepted),
    }
    copied: list[int] = []

    def link_or_copy(objects: ObjectFolder, ref: ObjectRef) -> None:
        with suppress(CorruptCheckpointError):  # or missing
            objects.verify(ref)
            return
        target = objects.path(ref)
        if not link_verified(disk, whole.objects.path(ref), target, ref):
            put(disk, target, whole.objects.chunks(ref))
            copied.append(ref.bytes)

    with whole.unless_removed():
        entry = create_experiment(
            folder,
            disk,
            whole.checkpoint,
            lineage=lineage,
            config=config,
            run_log=whole.run_log_chunks(),
            add_object=link_or_copy,
        )
    return Fork(entry, len(refs) - len(copied), sum(copied))


def accepted_by_fork(folder: Path, entry: CheckpointEntry) -> set[str]:
    """Return the changes with which the experiment in ``folder`` was forked from ``entry``.

    Empty where it is not a fork, or was forked from another checkpoint.

    Raises:
        CheckpointError: The lineage, or ``entry``, cannot be read.
    """
    lineage = _lineage_from(folder, entry)
    found = lineage.get("accepted")
    return {text for text in found if isinstance(text, str)} if isinstance(found, list) else set()


def settings_by_fork(entry: CheckpointEntry) -> dict[str, Any]:
    """Return the settings that a fork resumes with from ``entry`` in place of the recorded ones.

    Raises:
        CheckpointError: The lineage, or ``entry``, cannot be read.
    """
    changed = _lineage_from(entry.path.parent.parent, entry).get("changed")
    if not isinstance(changed, dict):
        return {}
    return {name: both["here"] for name, both in changed.items() if isinstance(both, dict)}


def _lineage_from(folder: Path, entry: CheckpointEntry) -> Mapping[str, Any]:
    """Return the lineage of the experiment in ``folder``, if it was forked from ``entry``."""
    lineage = lineage_of(folder) or {}
    if lineage.get("checkpoint") != entry.name:
        return {}
    digest = hashlib.sha256(CheckpointStore(entry.path.parent).read(entry)).hexdigest()
    return lineage if lineage.get("sha256") == digest else {}
