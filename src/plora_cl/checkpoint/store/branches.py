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

import logging
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.format.naming import MOST_BRANCHES
from plora_cl.checkpoint.format.trajectory import Departure, Trajectory
from plora_cl.checkpoint.store.outgoing import outgoing
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CorruptCheckpointError

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
            f"every checkpoint in {store.directory} is damaged; {_way_out(store, usable)}: "
            + "; ".join(damaged)
        )
    return None


def _way_out(store: CheckpointStore, usable: Callable[[CheckpointEntry], _Found]) -> str:
    """Return what helps where no checkpoint on the line does."""
    left = sorted([*store.retired(), *(entry for entry, _ in line_of(store).abandoned)])
    for entry in reversed(left):
        with suppress(CheckpointError):
            usable(entry)
            return (
                f"{entry.path} of another branch is intact: go on from it with --resume "
                f"{shlex.quote(str(entry.path))}, or restore the folder from a copy"
            )
    return "start afresh with --overwrite or restore the folder from a copy"


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
        CheckpointError: The directory cannot be listed, or there is no number for another branch.
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
    number = _next_branch(store, line, beyond=trajectory.branch)
    return Continuation(replace(trajectory.left_at(departure), branch=number), is_branch=True)


def started_afresh(store: CheckpointStore, identifier: str) -> Trajectory:
    """Return the trajectory of a run that starts afresh where ``store`` may hold others.

    Raises:
        CheckpointError: The directory cannot be listed, or there is no number for another branch.
    """
    line = line_of(store)
    is_same = all(known.id == identifier for _, known in line.known())
    if is_same and line.head is not None and not line.head.history:
        return line.head
    return Trajectory(identifier, branch=_next_branch(store, line))


def _next_branch(store: CheckpointStore, line: Line, *, beyond: int = -1) -> int:
    """Return a number greater than that of any branch of the folder, and than ``beyond``."""
    numbers = [beyond, *(known.branch for _, known in (*line.known(), *line.abandoned))]
    numbers += [entry.branch for entry in store.retired() if entry.branch is not None]
    number = 1 + max(numbers)
    if number >= MOST_BRANCHES:
        raise CheckpointError(
            f"{store.directory}: no branch can follow branch {number - 1}, which is the last one; "
            "start a run in another folder"
        )
    return number
