"""Refuses a run in a folder where it must not begin, before anything heavy is loaded."""

from __future__ import annotations

import shlex
from pathlib import Path

from plora_cl.checkpoint.store.replacement import require_unpinned
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointNotFoundError, ExperimentExistsError
from plora_cl.wording import counted


def require_startable(
    store: CheckpointStore, *, resume: bool | str | Path, overwrite: bool
) -> None:
    """Refuse to start afresh where there are checkpoints, and to resume where there are none.

    Args:
        store: The checkpoints of the experiment.
        resume: True resumes from the newest checkpoint, ``"auto"`` does so if there is one, a path
            names the checkpoint, False starts afresh.
        overwrite: Existing checkpoints may be removed, unless they are pinned.

    Raises:
        CheckpointNotFoundError: ``resume`` is True and there is no checkpoint, it is the path of
            something else, or there are only retired ones.
        ExperimentExistsError: There are checkpoints, and neither ``resume`` nor ``overwrite``; or
            pinned ones, and ``overwrite``.
    """
    if not isinstance(resume, bool) and resume != "auto":
        path = CheckpointEntry.at(Path(resume)).path
        if not path.is_file():
            raise CheckpointNotFoundError(f"{path}: no such checkpoint")
    entries, retired = store.entries(), store.retired()
    if resume in (True, "auto") and retired and not entries:
        raise CheckpointNotFoundError(
            f"{store.directory} holds only retired checkpoints: resume from one by its path "
            f"(plora-cl train --resume {shlex.quote(str(retired[-1].path))}), or start afresh in "
            "another folder (in this one: plora-cl train --overwrite)"
        )
    if resume is True and not entries:
        raise CheckpointNotFoundError(
            f"No checkpoint found in {store.directory}: start afresh with --resume auto (or "
            "without --resume), or name another experiment with --experiment-name (in Python: "
            "resume='auto', resume=False, experiment_name)"
        )
    there = [*entries, *retired]
    if not resume and there and not overwrite:
        raise ExperimentExistsError(
            f"{store.directory} already holds {counted(len(there), 'checkpoint')}: continue with "
            "--resume, start afresh with --overwrite, or choose another --experiment-name (in "
            "Python: resume=True, overwrite=True, experiment_name)"
        )
    if not resume and there:
        require_unpinned(store)
