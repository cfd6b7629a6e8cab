"""The settings of a run, as a program asks for them and hands them over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.precedence import resolve
from plora_cl.config.schema import Settings
from plora_cl.errors import CheckpointNotFoundError, SettingsError


def load_settings(
    config: str | Path | None = None, *, preset: str | None = None, **settings: Any
) -> Settings:
    """Return the settings that ``plora-cl train`` would resolve.

    From the weakest source to the strongest: the defaults, the preset, the file, the keywords.

    Args:
        config: YAML file; the ``config.yaml`` of an experiment means that experiment.
        preset: Name of packaged settings, such as ``"quickstart"``.
        **settings: Settings by name.

    Raises:
        SettingsError: A source cannot be read, or a setting is unknown, ill-typed, out of range or
            contradicts another one. The message lists every problem.
    """
    return resolve(
        preset=preset,
        config=None if config is None else Path(config),
        flags={name: ("keyword", value) for name, value in settings.items()},
    ).settings


def load_recorded_settings(folder: str | Path, **changes: Any) -> Settings:
    """Return the settings with which the experiment in ``folder`` resumes.

    Args:
        folder: Of the experiment, which may have been moved.
        **changes: Settings in place of recorded ones.

    Raises:
        CheckpointNotFoundError: There is no checkpoint in it.
        CheckpointError: Its record is lost, and no checkpoint can be read.
        SettingsError: The record, or a change, is unknown, ill-typed or contradictory.
    """
    place = Path(os.path.realpath(folder))
    if not CheckpointStore(place / "checkpoints").entries():
        raise CheckpointNotFoundError(
            f"{folder} has no checkpoint to resume from; expected the folder of an experiment, "
            "such as experiments/demo"
        )
    here = {"experiment_dir": str(place.parent), "experiment_name": place.name}
    given = {**here, **changes}
    flags = {name: ("keyword", value) for name, value in given.items()}
    return resolve(flags=flags, resume=True).settings


def require_settings(settings: object) -> Settings:
    """Return ``settings`` if they are some.

    Raises:
        SettingsError: They are something else, such as a dict.
    """
    if not isinstance(settings, Settings):
        kind = type(settings).__name__
        raise SettingsError([f"settings: a {kind}; expected what load_settings returns"])
    return settings
