"""The line of checkpoints in a folder that runs resume from, and the branches off it.

A branch begins where a run resumes from a checkpoint in a way that the folder does not know yet.
Its first checkpoint commits it: from then on the branch with the greatest number counts, with the
checkpoints that led to it, and all others are abandoned. Manifests alone decide that, at each
instant. An abandoned checkpoint is then *retired*: renamed to, for instance,
``checkpoint_task1_epoch0_batch9.pt.branch0``. A crash before that changes nothing but the names.
Retention keeps retired checkpoints and their objects, and a run can resume from one by its path.
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
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError

log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Line:
    """The checkpoints that count, and the abandoned ones.

    Attributes:
        entries: Checkpoints of the branch that counts and those that led to it, in the order of
            training. Unreadable ones are included, since their branch is unknown.
        abandoned: The others, with the trajectory of each.
        trajectories: Trajectories of the readable ``entries``, by path.
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
    """Return the line of ``store``; only manifests are read.

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
    """Return the checkpoints, without those of a run that another one has already replaced."""
    entries, going = store.entries(), outgoing(store)
    new = [entry for entry in entries if entry.path not in going]
    return new or entries


def newest_that(
    store: CheckpointStore, usable: Callable[[CheckpointEntry], _Found], *, warn: bool = True
) -> _Found | None:
    """Return what ``usable`` returns for the checkpoint a run resumes from; None where none exists.

    That is the newest intact one on the line. A damaged one is skipped with a warning. If another
    process has removed one since it was listed, the line is listed again. One that cannot be used
    for another reason, such as a later version of the format, is not skipped: resuming from an
    older one would hide the mistake.

    Args:
        store: Where to look.
        usable: Reads a checkpoint and the objects it needs.
        warn: Whether to warn of each skipped checkpoint.

    Raises:
        CorruptCheckpointError: There are checkpoints and every one is damaged.
        CheckpointError: As ``usable`` says.
    """
    damaged: list[str] = []
    untried = list(line_of(store).entries)
    while untried:
        entry = untried.pop()
        try:
            return usable(entry)
        except (CheckpointNotFoundError, CorruptCheckpointError) as error:
            if entry not in store.entries():  # removed meanwhile: there is a newer one
                damaged, untried = [], list(line_of(store).entries)
                continue
            if not isinstance(error, CorruptCheckpointError):
                raise
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
    """Return what the user can do where every checkpoint on the line is damaged."""
    left = sorted([*store.retired(), *(entry for entry, _ in line_of(store).abandoned)])
    for entry in reversed(left):
        with suppress(CheckpointError):
            usable(entry)
            return (
                f"{entry.path} of another branch is intact: resume from it by its path (plora-cl "
                f"train --resume {shlex.quote(str(entry.path))}), or restore the folder from a copy"
            )
    return (
        "restore the folder from a copy, or start afresh in another one (in this one: plora-cl "
        "train --overwrite)"
    )


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a run continues from a checkpoint.

    Attributes:
        trajectory: Of its next checkpoints.
        is_branch: Whether it begins a new branch, whose first checkpoint is due at once.
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
    """Return how a run continues that resumes from ``source`` with ``changes``.

    It stays on the branch where ``store`` has no later checkpoint, or only such that the run is
    going to compute again.

    Args:
        store: Where its checkpoints go; None where it saves none.
        source: The checkpoint, which may be in another folder or retired.
        manifest: Of ``source``.
        changes: Differences that decide the result, for `Departure`.
        by_choice: Whether the user chose one of them; the machine may explain the others.

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
    """Return the trajectory of a run that starts afresh in a ``store`` that may hold others.

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
