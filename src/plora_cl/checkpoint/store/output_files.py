"""Files of a run outside its checkpoints: settings, results, the run log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk.filesystem import (
    Filesystem,
    ReadableBytes,
    write_durably,
)
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.errors import CorruptCheckpointError, OutputError

RESULTS = (
    "accuracy_matrix.npy",
    "f1_matrix.npy",
    "computational_costs.json",
    "final_results.json",  # the last one: it names the branch of all
)
"""Files in ``results/`` of a run that has ended."""

_disk = Filesystem()


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Turn a failed change to ``path`` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; fix that (is the disk full?) and "
            "start the command again: a run with checkpoints continues with --resume auto"
        ) from error


def write_output(path: Path, data: ReadableBytes, filesystem: Filesystem = _disk) -> None:
    """Write ``data`` durably to ``path``, all or nothing; make its folder.

    Args:
        path: The file.
        data: Its content.
        filesystem: What performs the operations; the local disk by default.

    Raises:
        OutputError: The disk refused; the message names the file.
    """
    with recording(path):
        filesystem.make_directory(path.parent)
        write_durably(filesystem, path, data)


def retire_results(results: Path, *, branch: int, filesystem: Filesystem = _disk) -> None:
    """Rename results of other branches than ``branch``, for instance to ``...json.branch0``.

    Raises:
        OutputError: The disk refused; the next call continues.
    """
    last = results / RESULTS[-1]
    with recording(last):
        try:
            theirs = _branch_of(last.read_bytes())
        except FileNotFoundError:
            return
    if theirs in (None, branch):
        return
    for path in filter(Path.exists, (results / name for name in RESULTS)):
        with recording(path):
            filesystem.rename(path, path.with_name(f"{path.name}.branch{theirs}"))
            filesystem.sync_directory(results)


def _branch_of(content: bytes) -> int | None:
    try:
        found: Any = json.loads(content)
        return Trajectory.from_plain(found.get("trajectory")).branch
    except (ValueError, AttributeError, CorruptCheckpointError):
        return None  # torn or edited
