"""What ``--resume PATH`` names, in every form in which checkpoints are shown, and how to resume."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from plora_cl.checkpoint.format.naming import is_checkpoint
from plora_cl.config.fields import SettingFields
from plora_cl.config.locations import RECORD
from plora_cl.errors import CheckpointNotFoundError


def resume_command(folder: Path) -> str:
    """Return the command that resumes the experiment in ``folder``."""
    record = str(folder / RECORD)
    return shlex.join(["plora-cl", "train", "--config", record, "--resume", "auto"])


def resume_hint(folder: Path) -> str:
    """Return a line that says how to resume the experiment in ``folder``."""
    return f"Resume with: {resume_command(folder)}"


def checkpoint_path(text: str, experiment: Callable[[], Path]) -> str:
    """Return the path of the checkpoint that ``text`` names.

    Args:
        text: The path of a file; ``FOLDER@NAME.pt``, as ``plora-cl checkpoints`` takes it; or the
            name of a checkpoint of the experiment.
        experiment: Returns the folder of the experiment; called for a name that is no path.

    Returns:
        A path. It is ``text`` where no other form fits; whether there is a file is not checked.

    Raises:
        CheckpointNotFoundError: ``text`` names an experiment.
    """
    # `Path.is_file` and `Path.is_dir` raise for what is longer than a name can be.
    if os.path.isfile(text):  # noqa: PTH113
        return text
    folder, at, name = text.rpartition("@")
    if at and is_checkpoint(name):
        return str(Path(folder) / "checkpoints" / name)
    if is_checkpoint(text):
        path = experiment() / "checkpoints" / text
        return str(path) if path.is_file() else text
    default = SettingFields().experiment_dir
    for found in (Path(text), Path(default) / text):
        if os.path.isdir(found / "checkpoints"):  # noqa: PTH112
            flags = (
                ["--experiment-name", found.name]
                if found.parent == Path(default)
                else ["--config", str(found / RECORD)]
            )
            raise CheckpointNotFoundError(
                f"--resume {text}: it is an experiment, not a checkpoint; to resume the "
                f"experiment: {shlex.join(flags)} --resume"
            )
    return text
