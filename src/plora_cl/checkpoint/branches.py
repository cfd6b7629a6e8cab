"""Which checkpoints of a folder are gone on from, and what becomes of the others.

A branch begins where a run goes on from a checkpoint in another way than the folder knows. Its
first checkpoint is the commit: from then on the branch with the greatest number counts, with what
led to it, and everything else is abandoned, whatever its position. That follows from manifests
alone, at each instant. What is abandoned is then *retired*: renamed to, for instance,
``checkpoint_task1_epoch0_batch9.pt.branch0``. A crash before that changes nothing but the names.
Retention leaves a retired checkpoint and its objects alone; a run that is given its path goes on
from it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from plora_cl.checkpoint import container, pins
from plora_cl.checkpoint.disk_errors import reading, writing
from plora_cl.checkpoint.filesystem import partial_path, write_durably
from plora_cl.checkpoint.manifest import Manifest
from plora_cl.checkpoint.outgoing import outgoing
from plora_cl.checkpoint.policy import retired_name
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.trajectory import Departure, Trajectory
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError

log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Line:
    """The checkpoints that are gone on from, and those that are not.

    Attributes:
        entries: Of the branch that counts and of what led to it, in the order of training;
            unreadable ones too, since nobody knows where they belong.
        abandoned: The other ones, with the trajectory of each.
        trajectories: Of ``entries``, by path; without unreadable ones.
    """

    entries: Sequence[CheckpointEntry]
    abandoned: Sequence[tuple[CheckpointEntry, Trajectory]]
    trajectories: Mapping[Path, Trajectory]

    @property
    def head(self) -> Trajectory | None:
        """The trajectory of the newest entry that can be read."""
        return next((known for _, known in reversed(list(self.known()))), None)

    def known(self) -> Iterator[tuple[CheckpointEntry, Trajectory]]:
        """Yield the entries that can be read, and the trajectory of each."""
        for entry in self.entries:
            if entry.path in self.trajectories:
                yield entry, self.trajectories[entry.path]


def line_of(store: CheckpointStore) -> Line:
    """Tell which checkpoints of ``store`` are gone on from; only manifests are read.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    entries = _not_replaced(store)
    known: dict[Path, Trajectory] = {}
    for entry in entries:
        with suppress(CheckpointError):
            known[entry.path] = store.manifest(entry).trajectory
    readable = [entry for entry in entries if entry.path in known]
    if not readable:
        return Line(entries, [], {})
    newest = max(readable, key=lambda entry: (known[entry.path].branch, entry.position))
    head = known[newest.path]
    left = {
        (departure.trajectory, departure.branch): CheckpointEntry.at(Path(departure.checkpoint))
        for departure in head.history
    }

    def is_on_line(entry: CheckpointEntry) -> bool:
        trajectory = known.get(entry.path)
        if trajectory is None or trajectory.branch == head.branch:
            return True
        at = left.get((trajectory.id, trajectory.branch))
        return at is not None and entry <= at

    kept = [entry for entry in entries if is_on_line(entry)]
    gone = [(entry, known[entry.path]) for entry in readable if not is_on_line(entry)]
    return Line(kept, gone, {e.path: known[e.path] for e in kept if e.path in known})


def _not_replaced(store: CheckpointStore) -> list[CheckpointEntry]:
    """Return the checkpoints, without those of a run that another one has replaced already."""
    entries, going = store.entries(), {entry.path for entry in outgoing(store)}
    new = [entry for entry in entries if entry.path not in going]
    return new or entries


def newest_that(
    store: CheckpointStore, usable: Callable[[CheckpointEntry], _Found], *, warn: bool = True
) -> _Found | None:
    """Return what ``usable`` makes of the checkpoint a run is resumed from; None where none is.

    It is the newest one on the line that is intact. A damaged one is skipped with a warning. One
    that cannot be used for another reason, for instance since it is of a later version of the
    format, is not: going on from an older one would hide the mistake.

    Args:
        store: Where to look.
        usable: Reads a checkpoint and what it needs.
        warn: Warn of each checkpoint that is skipped.

    Raises:
        CorruptCheckpointError: There are checkpoints and every one is damaged.
        CheckpointError: As ``usable`` says.
    """
    damaged: list[str] = []
    for entry in reversed(line_of(store).entries):
        try:
            return usable(entry)
        except CorruptCheckpointError as error:
            if warn:
                log.warning("skipping a damaged checkpoint: %s", error)
            damaged.append(str(error))
    if damaged:
        raise CorruptCheckpointError(
            f"every checkpoint in {store.directory} is damaged; start afresh with --overwrite or "
            "restore the folder from a copy: " + "; ".join(damaged)
        )
    return None


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a run goes on from a checkpoint.

    Attributes:
        trajectory: Of the checkpoints to come.
        is_branch: Whether it is a new branch: its first checkpoint is due at once.
    """

    trajectory: Trajectory
    is_branch: bool


def continuation(
    store: CheckpointStore | None,
    source: CheckpointEntry,
    manifest: Manifest,
    changes: Collection[Mapping[str, str]],
    *,
    by_choice: bool,
) -> Continuation:
    """Tell what going on from ``source`` with ``changes`` makes of the checkpoints in ``store``.

    Where nothing lies ahead of it, or only what is going to be computed again, the branch stays
    the same.

    Args:
        store: Where the checkpoints to come go; None for nowhere.
        source: The checkpoint, which may be in another folder or retired.
        manifest: Of ``source``.
        changes: What decides the result and is different now, for `Departure`.
        by_choice: Among them is one that somebody may want to take back, not just the machine.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    here = store is not None and store.holds(source)
    trajectory = manifest.trajectory if here else manifest.trajectory.moved_elsewhere()
    departure = Departure(
        trajectory=trajectory.id,
        branch=trajectory.branch if here else None,
        checkpoint=source.name,
        task=manifest.cursor["task"],
        phase=manifest.cursor["phase"],
        step=manifest.cursor["step"],
        state_digest=manifest.state_digest,
        changes=tuple(changes),
    )
    following = trajectory.left_at(departure) if changes else trajectory
    if store is None:
        return Continuation(following, is_branch=False)
    line = line_of(store)
    is_on_line = here and source.path.name in {entry.path.name for entry in line.entries}
    if is_on_line and not by_choice:
        ahead = [known for entry, known in line.known() if entry > source]
        if all(known.id == following.id for known in ahead):
            return Continuation(ahead[-1] if ahead else following, is_branch=False)
    number = 1 + max(trajectory.branch, _greatest_branch(store, line))
    return Continuation(replace(trajectory.left_at(departure), branch=number), is_branch=True)


def started_afresh(store: CheckpointStore, identifier: str) -> Trajectory:
    """Return the trajectory of a run that starts afresh where ``store`` may hold others.

    Raises:
        CheckpointError: The directory cannot be listed.
    """
    line = line_of(store)
    if line.head is not None and all(known.id == identifier for _, known in line.known()):
        return line.head
    return Trajectory(identifier, branch=1 + _greatest_branch(store, line))


def commit(store: CheckpointStore, name: str, data: bytes) -> CheckpointEntry:
    """Make a checkpoint durable; what another branch has under its name is moved aside first.

    Raises:
        CheckpointError: The disk refused; what was there before is still there.
    """
    branch = container.manifest_of(io.BytesIO(data)).trajectory.branch
    earlier = CheckpointEntry.at(store.directory / name)
    try:
        known = store.manifest(earlier).trajectory
    except (CheckpointNotFoundError, CorruptCheckpointError):
        return store.commit(name, data)
    if known.branch == branch or earlier.path in {going.path for going in outgoing(store)}:
        return store.commit(name, data)
    with pins.held(store.directory, wait=True), writing(earlier.path):
        aside = _link_aside(store, earlier, known.branch)
        is_pinned = pins.copy(store, earlier, aside)
        store.filesystem.sync_directory(store.directory)
        entry = store.commit(name, data)
        if is_pinned:
            pins.unpin(store, earlier)
    return entry


def retire(store: CheckpointStore) -> list[CheckpointEntry]:
    """Move aside what is abandoned; return where it is now. Durable on return.

    Also makes up for what a process that was killed has left of this, or of a branch that it never
    committed.

    Raises:
        CheckpointError: The disk refused; what is abandoned counts as such all the same.
    """
    line = line_of(store)
    unused = _never_left(store, line)
    if not line.abandoned and not unused:
        return []
    moved = {entry.path: _aside(entry, known.branch) for entry, known in line.abandoned}
    with pins.held(store.directory, wait=True), writing(store.directory):
        pinned = [
            entry for entry, _ in line.abandoned if pins.copy(store, entry, moved[entry.path])
        ]
        if pinned:
            store.filesystem.sync_directory(store.directory)  # no name is ever there unpinned
        for path, aside in moved.items():
            store.filesystem.rename(path, aside.path)
        for entry in unused:
            store.filesystem.remove(entry.path)
        store.filesystem.sync_directory(store.directory)
        for entry in [*pinned, *unused]:
            pins.unpin(store, entry)
    return list(moved.values())


def _greatest_branch(store: CheckpointStore, line: Line) -> int:
    """Return the greatest number that a branch of the folder has; -1 where there is none."""
    numbers = [known.branch for _, known in (*line.known(), *line.abandoned)]
    numbers += [entry.branch for entry in store.retired() if entry.branch is not None]
    return max(numbers, default=-1)


def _never_left(store: CheckpointStore, line: Line) -> list[CheckpointEntry]:
    """Return links to checkpoints of the branch that counts: no other one was ever committed."""
    if line.head is None:
        return []
    there = {entry.name for entry in line.entries}
    head = line.head.branch
    return [e for e in store.retired() if e.branch == head and e.name in there]


def _aside(entry: CheckpointEntry, branch: int) -> CheckpointEntry:
    return CheckpointEntry.at(entry.path.with_name(retired_name(entry.name, branch)))


def _link_aside(store: CheckpointStore, entry: CheckpointEntry, branch: int) -> CheckpointEntry:
    """Give the file of ``entry`` its retired name too; copy it where the disk cannot link."""
    aside = _aside(entry, branch)
    disk, partial = store.filesystem, partial_path(aside.path)
    try:
        with disk.open(entry.path) as file:
            disk.link(file, entry.path, partial)
        disk.rename(partial, aside.path)
    except OSError as error:
        log.debug("%s is copied, not linked: %s", entry.path, error)
        with reading(entry.path), disk.open(entry.path) as file:
            data = file.read()
        write_durably(disk, aside.path, data)
    finally:
        with suppress(OSError):  # a rename between two names of one file does nothing
            disk.remove(partial)
    return aside
