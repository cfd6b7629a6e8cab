"""The checkpoints of a run: what each one takes alone, and what it shares with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.inventory import Summary, summaries


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint on disk.

    Attributes:
        name: Of its file.
        task: Zero-based task in training; None where its manifest cannot be read.
        step: Its number of optimizer steps.
        own_bytes: Its file and the objects that nothing else refers to.
        shared_bytes: Objects that other checkpoints refer to as well.
        is_retired: Whether it was left behind on another branch.
        problem: What is wrong with it; None where it is readable.
    """

    name: str
    task: int | None
    step: int | None
    own_bytes: int
    shared_bytes: int
    is_retired: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Storage:
    """All checkpoints of a run.

    Attributes:
        checkpoints: In the order of training, retired ones last.
        bytes_by_task: Bytes that the last checkpoint of a task refers to and no earlier task did.
        file_bytes: Bytes of all checkpoint files.
        object_bytes: Bytes of all objects that they refer to, each counted once.
        settings: Recorded in the newest readable checkpoint; empty where there is none.
        trajectory: Of that checkpoint.
    """

    checkpoints: Sequence[SavedCheckpoint] = ()
    bytes_by_task: Mapping[int, int] = field(default_factory=dict)
    file_bytes: int = 0
    object_bytes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    trajectory: Trajectory = UNKNOWN


def read_storage(directory: Path) -> Storage:
    """Return the checkpoints in ``directory``; manifests are verified, and sizes compared.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    if not directory.is_dir():
        return Storage()
    found = summaries(CheckpointStore(directory))
    refs = {ref for one in found for ref in one.objects}
    readable = [one.manifest for one in found if one.manifest is not None and not one.is_retired]
    return Storage(
        [_saved(one) for one in found],
        _new_bytes(found),
        sum(one.status.st_size for one in found),
        sum(ref.bytes for ref in refs),
        readable[-1].settings if readable else {},
        readable[-1].trajectory if readable else UNKNOWN,
    )


def _saved(one: Summary) -> SavedCheckpoint:
    cursor = None if one.manifest is None else one.manifest.cursor
    return SavedCheckpoint(
        one.entry.path.name,
        None if cursor is None else int(cursor["task"]),
        None if cursor is None else int(cursor["step"]),
        one.unique_bytes,
        one.shared_bytes,
        one.is_retired,
        one.problem,
    )


def _new_bytes(found: Sequence[Summary]) -> dict[int, int]:
    """Return the bytes of objects, and of the last checkpoint file, that each task adds."""
    last: dict[int, Summary] = {}
    for one in found:
        if one.manifest is not None and not one.is_retired:
            last[int(one.manifest.cursor["task"])] = one
    known: set[ObjectRef] = set()
    added = {}
    for task, one in sorted(last.items()):
        new = set(one.objects) - known
        added[task] = sum(ref.bytes for ref in new) + one.status.st_size
        known |= new
    return added
