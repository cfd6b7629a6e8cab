"""A run that starts afresh in the folder of an earlier one, and replaces it atomically.

The earlier run stays whole until the new one has a durable checkpoint or, where it saves none, its
results. If the new run ends before that, it is undone. In this order:

1. `set_aside` renames the files that the new run writes under the same names, and then lists the
   existing checkpoints (`plora_cl.checkpoint.store.outgoing`).
2. The new run commits its first checkpoint. From here on it is the run of this folder.
3. `complete` removes the listed checkpoints, then the renamed files, and then the list.

`recover` completes what was stopped after the second step and undoes what was stopped before it. It
removes the list first: renamed files without a list are always on their way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plora_cl.checkpoint.disk.errors import writing
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
        ExperimentExistsError: It has pinned checkpoints.
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
    """Prepare for a new run: nothing is removed yet, and nothing can be pinned any more.

    Raises:
        ExperimentExistsError: A checkpoint is pinned.
        CheckpointError: The disk refused.
    """
    with pins.held(store.directory, wait=True):
        require_unpinned(store)
        if not (store.everything() or _has(store, _RESULTS) or _has(store, Path(LINEAGE))):
            return
        files = _files(store, aside=False)
        _rename(store, {path: path.with_name(path.name + ASIDE) for path in files})
        write_list(store)


def complete(store: CheckpointStore, current: CheckpointEntry | None) -> None:
    """Remove the run that was set aside, if any, now that the new one has something durable.

    Args:
        store: Where both have their checkpoints.
        current: A durable checkpoint of the new run; None where it has only results.

    Raises:
        CheckpointError: The disk refused; the next call continues.
    """
    if not has_list(store):
        return
    with pins.held(store.directory, wait=True):
        kept = set() if current is None else {current.path}
        store.remove(outgoing(store) - kept, store.directory)
    store.remove(_files(store, aside=True))
    remove_list(store)
    collect_garbage(store)


def recover(store: CheckpointStore) -> bool:
    """Finish what a stopped process left; return whether a new run was undone.

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
    _rename(store, {path: path.with_suffix("") for path in _files(store, aside=True)})
    return undone


def _has(store: CheckpointStore, name: Path) -> bool:
    return store.size(store.directory.parent / name) is not None


def _files(store: CheckpointStore, *, aside: bool) -> list[Path]:
    """Return the files of a run outside its checkpoints, under their names or set aside."""
    folder = store.directory.parent
    results = folder / _RESULTS.parent
    paths = [results / name for name in store.names(results) if not is_partial(name)]
    for name in ("config.yaml", LINEAGE):
        paths += [folder / name, folder / (name + ASIDE)]
    return [p for p in paths if (p.suffix == ASIDE) is aside and store.size(p) is not None]


def _rename(store: CheckpointStore, targets: Mapping[Path, Path]) -> None:
    """Rename files within their directories; durable on return."""
    for path, target in targets.items():
        with writing(path):
            store.filesystem.rename(path, target)
    for folder in {path.parent for path in targets}:
        with writing(folder):
            store.filesystem.sync_directory(folder)
