"""Which files go: old checkpoints, objects that nothing needs, writes that never finished."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from plora_cl.checkpoint.disk.errors import reading, writing
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
    """Remove what retention lets go of, now that ``current`` is durable; return what went.

    Pinned checkpoints stay. While another process sets a pin nothing goes: that is left to the next
    rotation, so that training never waits.

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
    """Finish what a process that was stopped after it had committed ``current`` had begun.

    What is abandoned is moved aside, and what retention lets go of is removed.

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

    Where none is pinned, results and run logs of the branches that were left are among them, but no
    log that a checkpoint needs which stays: while one of those is damaged, no log at all.

    Raises:
        CheckpointError: The disk refused.
    """
    retired, results = store.retired(), store.directory.parent / "results"
    found = [entry.path for entry in retired if not pins.is_pinned(store, entry)]
    if len(found) < len(retired):
        return found
    with reading(results):
        names = store.filesystem.names(results)
    logs = _logs_of_nothing(store, names, without=found)
    left = {results / name for name in names if _OF_A_BRANCH.fullmatch(name)} | logs
    return [*found, *sorted(left)]


def discard_retired(store: CheckpointStore) -> list[Path]:
    """Remove what `disposable` finds; what only that referred to goes with `collect_garbage`.

    Raises:
        CheckpointError: The disk refused.
    """
    with pins.held(store.directory, wait=True):
        going = disposable(store)
        for path in going:
            with writing(path):
                store.filesystem.remove(path)
    for place in {path.parent for path in going}:
        with writing(place):
            store.filesystem.sync_directory(place)
    return going


def collect_garbage(store: CheckpointStore) -> list[Path]:
    """Remove what `garbage` finds; unfinished writes alone while the rest cannot be told.

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
            # A checkpoint removed by a process that was killed must not come back without them.
            store.filesystem.sync_directory(store.directory)
    for path in found:
        with writing(path), suppress(FileNotFoundError):  # a lock is tried for, and left alone
            if path.parent == store.objects.directory:
                store.objects.remove(path)
            else:
                store.filesystem.remove(path)
    return found


def garbage(store: CheckpointStore, *, without: Collection[Path] = ()) -> list[Path]:
    """Return objects that no checkpoint refers to, unfinished writes, and pins of nothing.

    Args:
        store: Where to look.
        without: Checkpoints that are going to be removed.

    Unfinished writes are those of the whole experiment, its settings and results included. Objects
    put since the store was opened stay until a commit has referred to them.

    Raises:
        CheckpointError: The manifest of a checkpoint is unreadable, so that what it needs is
            unknown, or the disk refused.
    """
    live: set[str] = set()
    for entry in store.everything():
        if entry.path in without:
            continue
        live |= {ref.sha256 for ref in store.manifest(entry).objects.values()}
    with reading(store.directory):
        left = pins.of_nothing(store.filesystem.names(store.directory))
    found = [*_unfinished(store), *(store.directory / name for name in left)]
    return [*found, *(path for path in store.objects.unused(live) if path not in found)]


def _unfinished(store: CheckpointStore) -> list[Path]:
    """Return the writes of an experiment that never finished, whatever they were to become."""
    folder = store.directory.parent
    found: list[Path] = []
    for place in (folder, folder / "results", store.directory):
        with reading(place):
            names = store.filesystem.names(place)
        found += [place / name for name in names if is_partial(name)]
    return found + store.objects.unfinished()


def _logs_of_nothing(
    store: CheckpointStore, names: Collection[str], *, without: Collection[Path]
) -> set[Path]:
    """Return the copies of the run log that no checkpoint needs but those in ``without``."""
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
    """Return whether removing ``stale`` may leave objects behind that nothing needs.

    Most often it does not: then the manifests of all the other checkpoints need not be read.
    """
    needed = set(current.objects.values()) if current is not None else set()
    manifests = (_manifest(store, entry) for entry in stale)
    return any(m is None or not needed.issuperset(m.objects.values()) for m in manifests)


def _manifest(store: CheckpointStore, entry: CheckpointEntry) -> Manifest | None:
    try:
        return store.manifest(entry)
    except CorruptCheckpointError:
        return None
