"""The file in an experiment that records the settings of its run."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.store.branches import line_of
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.config.locations import RECORD, found_again
from plora_cl.config.schema import as_recorded
from plora_cl.config.yaml_file import read_mapping
from plora_cl.errors import CheckpointError

Resume: TypeAlias = bool | Literal["auto"] | str

log = logging.getLogger(__name__)
_HEADER = re.compile(
    rb"# Settings of branch (?P<branch>[0-9]{1,9}); "
    rb"SHA-256 of what follows: (?P<digest>[0-9a-f]{64})\n"
)


def record(dumped: str, *, branch: int) -> bytes:
    """Return the content of ``config.yaml`` for settings as `dump` returns them.

    Args:
        dumped: The settings as YAML.
        branch: Of the experiment, see `plora_cl.checkpoint.store.branches`.
    """
    digest = hashlib.sha256(dumped.encode()).hexdigest()
    return f"# Settings of branch {branch}; SHA-256 of what follows: {digest}\n{dumped}".encode()


def recorded_in(folder: Path, resume: Resume) -> tuple[str, dict[Any, Any]]:
    """Return the settings with which the experiment in ``folder`` resumes, and their file.

    The file is ``config.yaml``. The checkpoint to resume replaces it in two cases: the file is
    lost, or a run was killed between the first checkpoint of a new branch and the record of that
    branch. An edited file is used as it is; settings that it lacks come from the checkpoint. A file
    of a later branch than every readable checkpoint is used if a damaged checkpoint may belong to
    that branch, so that an older checkpoint does not silently restore its settings.

    Args:
        folder: Of the experiment, which may have been moved.
        resume: True or ``auto``, or the path of a checkpoint.

    Raises:
        SettingsError: The file is no mapping of settings.
        CheckpointError: It is lost, and no checkpoint can be read.
    """
    path = folder / RECORD
    if not path.is_file():
        entry = _asked_for(folder, resume)
        if entry is None:
            entry = resume_point(CheckpointStore(folder / "checkpoints"))
        return _settings_in(entry, folder) if entry is not None else (str(path), {})
    values = read_mapping(path)
    branch = _branch(path.read_bytes())
    written = found_again(values, folder)
    with suppress(CheckpointError):  # resuming reports what is wrong
        entry = _asked_for(folder, resume) or _newest(folder, branch)
        if entry is not None and branch is None:
            if _HEADER.match(path.read_bytes()):
                log.warning("%s was edited, or damaged, after a run wrote it; it counts", path)
            return str(path), {**_settings_in(entry, folder)[1], **written}
        store = CheckpointStore(folder / "checkpoints")
        if entry is not None and store.manifest(entry).trajectory.branch != branch:
            return _settings_in(entry, folder)
    return str(path), as_recorded(written)


def manifest_with_settings(entry: CheckpointEntry) -> Manifest:
    """Return the manifest of a checkpoint that `plora-cl train` can resume.

    Raises:
        CheckpointError: It has no settings.
    """
    manifest = CheckpointStore(entry.path.parent).manifest(entry)
    if not manifest.settings:
        raise CheckpointError(
            f"{entry.path} has no settings: a program of its own saved it, and resumes it; list, "
            "verify, inspect, diff, pin, unpin and gc work on it"
        )
    return manifest


def _asked_for(folder: Path, resume: Resume) -> CheckpointEntry | None:
    """Return the checkpoint of the experiment that ``resume`` is the path of, if it is one."""
    if isinstance(resume, bool) or resume == "auto":
        return None
    with suppress(CheckpointError):
        entry = CheckpointEntry.at(Path(resume))
        if CheckpointStore(folder / "checkpoints").holds(entry):
            return entry
    return None


def _newest(folder: Path, branch: int | None) -> CheckpointEntry | None:
    """Return the newest checkpoint that can be read; None if a damaged one may be of ``branch``."""
    line = line_of(CheckpointStore(folder / "checkpoints"))
    known = list(line.known())
    if not known:
        return None
    entry, trajectory = known[-1]
    has_damaged = len(known) < len(line.entries)
    is_older = branch is not None and has_damaged and trajectory.branch < branch
    return None if is_older else entry


def _settings_in(entry: CheckpointEntry, folder: Path) -> tuple[str, dict[Any, Any]]:
    settings: Mapping[str, Any] = manifest_with_settings(entry).settings
    return str(entry.path), as_recorded(found_again(settings, folder))


def _branch(content: bytes) -> int | None:
    """Return the branch whose settings a file holds; None if it does not say so, or was edited."""
    header = _HEADER.match(content)
    if header is None:
        return None
    digest = hashlib.sha256(content[header.end() :]).hexdigest()
    return int(header["branch"]) if digest.encode() == header["digest"] else None
