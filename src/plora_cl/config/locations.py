"""Folders that settings name, so that they mean the same from any working directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plora_cl.config.fields import setting_fields
from plora_cl.config.schema import Settings
from plora_cl.data.sources.entry import PLACES, added_places, split_place, task_name
from plora_cl.setting_types import Refers, referring

RECORD = "config.yaml"
"""Name of the file in an experiment that says what its run was started with."""


def experiment_recorded_in(config: Path) -> Path | None:
    """Return the experiment folder whose record ``config`` is, None for any other file."""
    folder = config.parent
    begun = (folder / ".lock").exists() or any(folder.glob("checkpoints/checkpoint_task*.pt*"))
    if config.name != RECORD or not begun:
        return None
    # A folder is known by its name, which neither "." nor ".." tells.
    return folder if folder.name not in ("", "..") else Path(os.path.realpath(folder))


def anchored(settings: Settings) -> Settings:
    """Return ``settings`` with absolute paths in place of those relative to the working directory.

    Names on the hub and of packaged models and tasks stay as they are.
    """
    values = anchored_values(
        {name: getattr(settings, name) for name in type(settings).model_fields}
    )
    return settings.model_copy(update=values)


def anchored_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` of settings, such as a checkpoint holds, with absolute paths."""
    return _placed(values, lambda text: str(Path(text).expanduser().absolute()))


def found_again(values: Mapping[Any, Any], folder: Path) -> dict[Any, Any]:
    """Return what a run in ``folder`` was started with, where the folder may have been moved.

    A path that leads nowhere any more is looked for where it is if everything was moved together.

    Args:
        values: Read from a record; they may be ill-typed.
        folder: Of the experiment, where it is now.
    """
    places = [values.get(name) for name in ("experiment_dir", "experiment_name")]
    here = {"experiment_dir": str(folder.parent), "experiment_name": folder.name}
    if not all(isinstance(place, str) and place for place in places):
        return {**values, **here}
    before, now = Path(*map(str, places)), folder.absolute()

    def moved(text: str) -> str:
        if not before.is_absolute() or not Path(text).is_absolute() or _exists(text):
            return text
        there = os.path.normpath(now / os.path.relpath(text, before))
        return there if _exists(there) else text

    return {**_placed(values, moved), **here}


def _placed(values: Mapping[Any, Any], place: Callable[[str], str]) -> dict[Any, Any]:
    """Return ``values`` with ``place`` applied to all that is a local path."""
    found = dict(values)
    paths, models = (referring(setting_fields(), to) for to in (Refers.PATH, Refers.MODEL))
    for name in (*paths, *models):
        text = values.get(name)
        if isinstance(text, str) and (name in paths or _is_local(text)):
            found[name] = place(text)
    tasks = values.get("tasks")
    if isinstance(tasks, list | tuple):
        found["tasks"] = type(tasks)(_placed_entry(entry, place) for entry in tasks)
    return found


def _placed_entry(entry: Any, place: Callable[[str], str]) -> Any:
    if isinstance(entry, str):
        added = split_place(entry)
        if added is not None and _is_local(added[1]):
            return f"{added[0]}:{place(added[1])}"
        if not _is_task_folder(entry):
            return entry
        found = place(entry)
        name = task_name(entry)
        return found if name in ("", Path(found).name) else {"path": found, "name": name}
    if not isinstance(entry, Mapping):
        return entry
    moved = {
        key: place(entry[key])
        for key in ("path", "hub", *(added_places() if not {*PLACES} & entry.keys() else ()))
        if isinstance(entry.get(key), str) and (key == "path" or _is_local(entry[key]))
    }
    text = next(iter(moved), None)
    if text is not None and "name" not in entry:
        name = Path(entry[text]).name
        if name not in ("", Path(moved[text]).name):
            moved["name"] = name
    return {**entry, **moved}


def _is_task_folder(text: str) -> bool:
    from plora_cl.data.sources.declaration import (
        spelled_out,  # imports pyarrow: not needed for --help
    )

    return "path" in spelled_out(text) and ("/" in text or os.sep in text or _exists(text))


def _is_local(text: str) -> bool:
    return not text.startswith("packaged:") and (Path(text).is_absolute() or _exists(text))


def _exists(text: str) -> bool:
    # `Path.exists` raises for what is longer than a name can be.
    return os.path.exists(text)  # noqa: PTH110
