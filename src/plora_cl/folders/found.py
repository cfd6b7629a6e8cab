"""The experiments in a folder, and the one that a mistyped path may have meant."""

from __future__ import annotations

from pathlib import Path

from plora_cl.checkpoint.disk.lock import LOCK_NAME
from plora_cl.config.fields import SettingFields
from plora_cl.folders.published import RESULTS
from plora_cl.wording import nearest

FAILURE = "failure.json"
"""The file in a run of a study that says why the run failed."""

_DEPTH = 3
"""Folders below the one that is asked for: a study in it has runs, and trials one deeper."""


def is_experiment(folder: Path) -> bool:
    """Return whether ``folder`` is that of an experiment: it has checkpoints or results."""
    try:
        return (folder / "checkpoints").is_dir() or (folder / RESULTS).is_file()
    except OSError:  # longer than a name can be, or nobody may look
        return False


def experiments_in(folder: Path, depth: int = _DEPTH) -> list[Path]:
    """Return the experiments in ``folder``, or ``folder`` itself where it is one, sorted.

    A run that has only begun, or that failed before it saved anything, counts. Links are not
    followed.
    """
    if is_experiment(folder):
        return [folder]
    if not depth:
        return [folder] * _has_begun(folder)
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
    found = [each for path in sorted(inside) for each in experiments_in(path, depth - 1)]
    return found or [folder] * _has_begun(folder)


def _has_begun(folder: Path) -> bool:
    # A study, too, has a lock while its runs are under way: then there is a run in it
    return any((folder / name).exists() for name in (LOCK_NAME, FAILURE))


def perhaps_meant(path: Path) -> str:
    """Return what to type instead of ``path``, which is no experiment."""
    if inside := [found.name for found in experiments_in(path, 1)]:
        return f"the experiments in it are {', '.join(inside)}; for instance, {path / inside[0]}"
    for parent in (path.parent, Path(SettingFields().experiment_dir)):
        meant = nearest(path.name, [found.name for found in experiments_in(parent, 1)])
        if meant is not None:
            return f"did you mean {parent / meant}?"
    return "expected, for instance, experiments/demo"
