"""A run that starts afresh where an earlier one is, and takes its place all at once.

The earlier run stays, whole, until the new one stands on something: a durable checkpoint, or, where
it saves none, its results. Until then whatever ends the new run undoes it. In this order:

1. `set_aside` renames the files that the new run writes under the same names, and then lists the
   checkpoints that are there (`plora_cl.checkpoint.store.outgoing`).
2. The new run commits its first checkpoint. From here on it is the run of this folder.
3. `complete` removes the listed checkpoints, then what was set aside, and then the list.

`recover` completes what was stopped after the second step and undoes what was stopped before it. It
removes the list first: files that were set aside without a list are always on their way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plora_cl.checkpoint.disk.errors import reading, writing
from plora_cl.checkpoint.disk.filesystem import is_partial
from plora_cl.checkpoint.store import pins
from plora_cl.checkpoint.store.outgoing import ASIDE, has_list, outgoing, remove_list, write_list
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.run_log import LINEAGE
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import ExperimentExistsError

_RESULTS = Path("results", "final_results.json")


def require_unpinned(store: CheckpointStore) -> None:
    """Refuse to replace a run that has pinned checkpoints.

    Raises:
        ExperimentExistsError: It has.
        CheckpointError: The directory cannot be listed.
    """
    names = [entry.path.name for entry in store.everything() if pins.is_pinned(store, entry)]
    if names:
        raise ExperimentExistsError(
            f"{store.directory} holds pinned checkpoints, which --overwrite would remove: "
            f"{', '.join(names)}; plora-cl checkpoints unpin "
            f"{store.directory.parent}@{names[0]}, or choose another --experiment-name"
        )


def set_aside(store: CheckpointStore) -> None:
    """Prepare for a new run: nothing goes, and what is going to go can no longer be pinned.

    Raises:
        ExperimentExistsError: A checkpoint is pinned.
        CheckpointError: The disk refused.
    """
    with pins.held(store.directory, wait=True):
        require_unpinned(store)
        if not (store.everything() or _has(store, _RESULTS) or _has(store, Path(LINEAGE))):
            return
        files = _files(store, aside=False)
        for path in files:
            with writing(path):
                store.filesystem.rename(path, path.with_name(path.name + ASIDE))
        _sync(store, files)
        write_list(store)


def complete(store: CheckpointStore, current: CheckpointEntry | None) -> None:
    """Remove the run that was set aside, if one was, now that the new one stands on something.

    Args:
        store: Where both have their checkpoints.
        current: A durable checkpoint of the new run; None where results are all it has.

    Raises:
        CheckpointError: The disk refused; the next call goes on.
    """
    if not has_list(store):
        return
    with pins.held(store.directory, wait=True):
        kept = None if current is None else current.path
        store.delete(entry for entry in outgoing(store) if entry.path != kept)
    files = _files(store, aside=True)
    for path in files:
        with writing(path):
            store.filesystem.remove(path)
    _sync(store, files)
    remove_list(store)
    collect_garbage(store)


def recover(store: CheckpointStore) -> bool:
    """Finish what another process was stopped in; return whether a new run was undone.

    Raises:
        CorruptCheckpointError: The list of what was to be replaced is unreadable.
        CheckpointError: The disk refused.
    """
    undone = has_list(store)
    if undone:
        if _has(store, _RESULTS) or len(outgoing(store)) < len(store.everything()):
            complete(store, None)
            return False
        remove_list(store)
    files = _files(store, aside=True)
    for path in files:
        with writing(path):
            store.filesystem.rename(path, path.with_suffix(""))
    _sync(store, files)
    return undone


def _has(store: CheckpointStore, name: Path) -> bool:
    path = store.directory.parent / name
    with reading(path):
        return store.filesystem.size(path) is not None


def _files(store: CheckpointStore, *, aside: bool) -> list[Path]:
    """Return what a run writes beside its checkpoints, as it is called or as it was set aside."""
    folder = store.directory.parent
    results = folder / _RESULTS.parent
    with reading(folder):
        paths = [results / name for name in store.filesystem.names(results) if not is_partial(name)]
        for name in ("config.yaml", LINEAGE):
            paths += [folder / name, folder / (name + ASIDE)]
        return [
            path
            for path in paths
            if (path.suffix == ASIDE) is aside and store.filesystem.size(path) is not None
        ]


def _sync(store: CheckpointStore, files: Sequence[Path]) -> None:
    for folder in {path.parent for path in files}:
        with writing(folder):
            store.filesystem.sync_directory(folder)
