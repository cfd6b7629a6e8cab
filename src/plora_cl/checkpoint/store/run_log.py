"""The bytes of the run log that belong to a checkpoint."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk.errors import reading
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.inspection import read_content
from plora_cl.checkpoint.store.outgoing import ASIDE
from plora_cl.errors import CorruptCheckpointError
from plora_cl.run_log_files import copies_of, holder_of

LINEAGE = "lineage.json"
RUN_LOG = "results/run_log.jsonl"


def run_log_at(filesystem: Filesystem, folder: Path, position: Mapping[str, Any]) -> Path:
    """Return the file of the experiment in ``folder`` that holds its run log up to ``position``.

    The log of a retired checkpoint may be a copy; that of a run that a new one is about to replace
    is set aside. Where no file holds the position, the path of the log itself is returned.

    Raises:
        CheckpointError: The disk refused.
    """
    path = folder / RUN_LOG
    with reading(path):
        names = {name.removesuffix(ASIDE) for name in filesystem.names(path.parent)}
        files = [path, *copies_of(path, names)]
        files += [path.with_name(path.name + ASIDE) for path in files]
        length, digest = position["bytes"], position["sha256"]
        return holder_of(files, length, digest, open_file=filesystem.open) or path


def run_log_position(checkpoint: bytes) -> Mapping[str, Any]:
    """Return the state of the run log in a verified checkpoint, without a tensor library.

    Raises:
        CorruptCheckpointError: The content cannot be read.
    """
    position = read_content(io.BytesIO(checkpoint))["state"].get("run_log")
    if position is None:
        raise CorruptCheckpointError("it has no position in the run log: no run can resume from it")
    if (
        not isinstance(position, dict)
        or type(count := position.get("bytes")) is not int
        or count < 0
        or type(position.get("sha256")) is not str
    ):
        raise CorruptCheckpointError("its run log position is not a number of bytes and a digest")
    return position
