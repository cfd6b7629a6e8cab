"""How the settings of a checkpoint differ from others; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plora_cl.checkpoint.snapshot import compatibility as changes
from plora_cl.checkpoint.snapshot.compatibility import SettingChange
from plora_cl.config.fields import impacts
from plora_cl.config.locations import anchored_values
from plora_cl.config.schema import Settings, compared_form, completed

_DONE = "done"


def setting_changes(
    saved: Mapping[str, Any],
    cursor: Mapping[str, Any],
    settings: Settings,
    *,
    validated: bool = False,
) -> list[SettingChange]:
    """Return every difference, with its impact on a run that resumes from the checkpoint.

    Args:
        saved: Settings of the checkpoint, perhaps of an earlier version.
        cursor: Of the checkpoint.
        settings: Of the run.
        validated: One epoch of the task is the best one so far; a manifest does not tell.
    """
    return changes.setting_changes(
        *compared(saved, settings),
        impacts(),
        inside=cursor["phase"] != _DONE,
        validated=validated,
    )


def compared(saved: Mapping[str, Any], settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both settings complete and plain, with absolute paths."""
    return anchored_values(completed(saved)), anchored_values(compared_form(settings))


def is_finished(cursor: Mapping[str, Any], tasks: int) -> bool:
    """Tell whether nothing is left to learn of a stream of so many tasks."""
    return bool(cursor["phase"] == _DONE and cursor["task"] == tasks - 1)
