"""How the settings of a checkpoint differ from others; loads no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from plora_cl.checkpoint.snapshot import compatibility as changes
from plora_cl.checkpoint.snapshot.compatibility import SettingChange
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.config.fields import impacts
from plora_cl.config.locations import anchored_values
from plora_cl.config.schema import Settings, compared_form, completed
from plora_cl.errors import CheckpointError
from plora_cl.impact import Impact

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


def earlier_to_fork(
    finished: CheckpointEntry, settings: Settings, refused: Sequence[SettingChange]
) -> str:
    """Say how to learn with the settings that a finished run refuses.

    Args:
        finished: The checkpoint in which every task is learned.
        settings: Those that were asked for.
        refused: What differs from the settings of the checkpoint.

    Returns:
        The command that forks the newest earlier checkpoint that takes ``settings``; or that there
        is none.
    """
    store = CheckpointStore(finished.path.parent)
    for entry in reversed([entry for entry in store.entries() if entry < finished]):
        with suppress(CheckpointError):  # a damaged one cannot be forked
            manifest = store.manifest(entry)
            if not manifest.settings or is_finished(manifest.cursor, len(settings.tasks)):
                continue
            found = setting_changes(manifest.settings, manifest.cursor, settings)
            if all(change.impact is not Impact.STRUCTURAL for change in found):
                return f"fork an earlier checkpoint: {_fork_command(entry, settings, refused)}"
    return (
        "start a new run with another --experiment-name: no earlier checkpoint is left that could "
        "be forked with them"
    )


def _fork_command(
    entry: CheckpointEntry, settings: Settings, refused: Sequence[SettingChange]
) -> str:
    folder, here = entry.path.parent.parent, Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    now = settings.model_dump(mode="json")
    assignments = [
        part
        for change in refused
        if change.key in now
        for part in ("--set", f"{change.key}={_as_yaml(now[change.key])}")
    ]
    return (
        f"plora-cl checkpoints fork {shlex.quote(f'{shown}@{entry.name}')} NEW-FOLDER "
        f"{shlex.join(assignments)}"
    ).rstrip()


def _as_yaml(value: object) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return dumped.removesuffix("...\n").strip()
