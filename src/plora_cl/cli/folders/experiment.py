"""The experiment that a command names, checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.cli.checkpoints.command import locate
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, ModelError
from plora_cl.folders.recorded import task_names
from plora_cl.wording import nearest


class Named(NamedTuple):
    """An experiment, and perhaps one of its checkpoints.

    Attributes:
        folder: Of the experiment.
        checkpoint: The file that was asked for; None for the one a run would resume from.
    """

    folder: Path
    checkpoint: Path | None


def named_experiment(experiment: str, checkpoint: str | None, task: str | None) -> Named:
    """Return what the arguments of a command name.

    Args:
        experiment: A folder, or a checkpoint as `locate` takes it.
        checkpoint: A file, or its name within the experiment; None for the default.
        task: A task that the run has to have.

    Raises:
        CheckpointNotFoundError: There is no such experiment or checkpoint.
        ModelError: The run has no such task.
    """
    found = locate(experiment)
    folder, entry = found.store.directory.parent, found.entry
    if checkpoint is not None:
        inside = found.store.directory / Path(checkpoint).name
        path = Path(checkpoint) if Path(checkpoint).is_file() else inside
        if not path.is_file():
            raise CheckpointNotFoundError(
                f"{folder} has no checkpoint {checkpoint!r}; "
                f"see: plora-cl checkpoints list {folder}"
            )
        entry = CheckpointEntry.at(path)
    there = [entry] if entry is not None else found.store.entries()[-1:]
    if not there:
        raise CheckpointNotFoundError(f"no checkpoint in {found.store.directory}")
    if task is not None:
        _require_task(folder, there[0], task)
    return Named(folder, None if entry is None else entry.path)


def _require_task(folder: Path, entry: CheckpointEntry, task: str) -> None:
    try:
        names = task_names(CheckpointStore(entry.path.parent).manifest(entry).settings)
    except CheckpointError:
        return  # damaged: whoever loads it says so, or finds another one
    if names and task not in names:
        meant = nearest(task, names)
        hint = f"did you mean {meant!r}? " if meant else ""
        raise ModelError(f"task {task!r} is not one of {folder}; {hint}it has {', '.join(names)}")
