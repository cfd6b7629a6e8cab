"""Removes old checkpoints, unneeded objects and unfinished writes."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from plora_cl.checkpoint.disk.errors import writing
from plora_cl.checkpoint.disk.filesystem import is_partial
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.format.naming import retained
from plora_cl.checkpoint.store import pins
from plora_cl.checkpoint.store.output_files import RESULTS
from plora_cl.checkpoint.store.retiring import retire
from plora_cl.checkpoint.store.run_log import RUN_LOG, run_log_at, run_log_position
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CorruptCheckpointError
from plora_cl.run_log_files import copies_of

log = logging.getLogger(__name__)
_OF_A_BRANCH = re.compile(rf"({'|'.join(map(re.escape, RESULTS))})\.branch[0-9]+")


def rotate(
    store: CheckpointStore,
    current: CheckpointEntry,
    keep_last: int,
    manifest: Manifest | None = None,
) -> list[CheckpointEntry]:
    """Remove checkpoints beyond ``keep_last``, now that ``current`` is durable; return them.

    Pinned checkpoints stay. While another process sets a pin, removal is left to the next rotation,
    so that training never waits.

    Args:
        store: Where the checkpoints are.
        current: The checkpoint that was committed last.
        keep_last: Checkpoints of the task in training that stay, at least 1.
        manifest: Of ``current``; read from its file by default.

    Raises:
        CheckpointError: The disk refused.
        ValueError: ``keep_last`` is below 1.
    """
    manifest = manifest or _manifest(store, current)
    is_done = manifest is not None and manifest.cursor["phase"] == "done"
    done = [current.position.task] if is_done else []
    with pins.held(store.directory, wait=False) as is_held:
        if not is_held:
            return []
        entries = store.entries()
        kept = retained(
            (entry.position for entry in entries), keep_last, current=current.position, done=done
        ) | pins.pinned(store)
        stale = [entry for entry in entries if entry.position not in kept]
        leave_objects = _leave_objects(store, stale, manifest)
        if stale:
            store.delete(stale)
    if leave_objects:
        collect_garbage(store)
    return stale


def tidy(store: CheckpointStore, current: CheckpointEntry, keep_last: int) -> None:
    """Finish the work of a process that was stopped after it had committed ``current``.

    Abandoned checkpoints are retired, and those beyond ``keep_last`` removed.

    Raises:
        CheckpointError: The disk refused.
        ValueError: ``keep_last`` is below 1.
    """
    with writing(store.directory):
        store.filesystem.sync_directory(store.directory)  # ``current`` may be visible, not durable
    retire(store)
    rotate(store, current, keep_last)
    collect_garbage(store)


def disposable(store: CheckpointStore) -> list[Path]:
    """Return retired checkpoints that are not pinned.

    Where none is pinned, results and run logs of abandoned branches are included, except logs that
    a remaining checkpoint needs; while one of those is damaged, no log is included.

    Raises:
        CheckpointError: The disk refused.
    """
    retired, results = store.retired(), store.directory.parent / "results"
    found = [entry.path for entry in retired if not pins.is_pinned(store, entry)]
    if len(found) < len(retired):
        return found
    names = store.names(results)
    logs = _logs_of_nothing(store, names, without=found)
    left = {results / name for name in names if _OF_A_BRANCH.fullmatch(name)} | logs
    return [*found, *sorted(left)]


def discard_retired(store: CheckpointStore) -> list[Path]:
    """Remove what `disposable` finds; `collect_garbage` removes what only that referred to.

    Raises:
        CheckpointError: The disk refused.
    """
    with pins.held(store.directory, wait=True):
        going = disposable(store)
        store.remove(going)
    return going


def collect_garbage(store: CheckpointStore) -> list[Path]:
    """Remove what `garbage` finds; only unfinished writes while the rest is unknown.

    Returns:
        The files that were removed.

    Raises:
        CheckpointError: The disk refused.
    """
    try:
        found = garbage(store)
    except CheckpointError as error:
        log.warning("%s: only unfinished writes are cleaned up, since %s", store.directory, error)
        found = _unfinished(store)
    if any(path.is_relative_to(store.directory) for path in found):
        with writing(store.directory):
            # A checkpoint that a killed process removed must not come back without them.
            store.filesystem.sync_directory(store.directory)
    for path in found:
        with writing(path), suppress(FileNotFoundError):  # another process may have removed it
            if path.parent == store.objects.directory:
                store.objects.remove(path)
            else:
                store.filesystem.remove(path)
    return found


def garbage(store: CheckpointStore, *, without: Collection[Path] = ()) -> list[Path]:
    """Return unfinished writes, pins of nothing, and objects that no checkpoint refers to.

    Unfinished writes are those of the whole experiment, its settings and results included. Objects
    stored through ``store`` stay until a commit has referred to them.

    Args:
        store: Where to look.
        without: Checkpoints that are about to be removed.

    Raises:
        CheckpointError: The manifest of a checkpoint is unreadable, so that what it needs is
            unknown, or the disk refused.
    """
    live: set[str] = set()
    for entry in store.everything():
        if entry.path in without:
            continue
        live |= {ref.sha256 for ref in store.manifest(entry).objects.values()}
    left = [store.directory / name for name in pins.of_nothing(store.names(store.directory))]
    return [*_unfinished(store), *left, *store.objects.unused(live)]


def _unfinished(store: CheckpointStore) -> list[Path]:
    """Return the unfinished writes of an experiment."""
    folder = store.directory.parent
    found: list[Path] = []
    for place in (folder, folder / "results", store.directory):
        found += [place / name for name in store.names(place) if is_partial(name)]
    return found + store.objects.unfinished()


def _logs_of_nothing(
    store: CheckpointStore, names: Collection[str], *, without: Collection[Path]
) -> set[Path]:
    """Return the copies of the run log that no checkpoint outside ``without`` needs."""
    folder = store.directory.parent
    copies = set(copies_of(folder / RUN_LOG, names))
    try:
        for entry in store.everything() if copies else ():
            if entry.path not in without:
                position = run_log_position(store.read(entry))
                copies.discard(run_log_at(store.filesystem, folder, position))
    except CorruptCheckpointError:
        return set()
    return copies


def _leave_objects(
    store: CheckpointStore, stale: list[CheckpointEntry], current: Manifest | None
) -> bool:
    """Tell whether removing ``stale`` may leave unneeded objects behind.

    Usually it does not; the manifests of all other checkpoints then need not be read.
    """
    needed = set(current.objects.values()) if current is not None else set()
    manifests = (_manifest(store, entry) for entry in stale)
    return any(m is None or not needed.issuperset(m.objects.values()) for m in manifests)


def _manifest(store: CheckpointStore, entry: CheckpointEntry) -> Manifest | None:
    try:
        return store.manifest(entry)
    except CorruptCheckpointError:
        return None
