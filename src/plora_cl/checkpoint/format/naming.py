"""Names of checkpoints and objects, when a save is due, how long it stays: pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

_NUMBER = r"(0|[1-9][0-9]{0,17})"
_NAME = re.compile(rf"checkpoint_task{_NUMBER}_epoch{_NUMBER}_batch{_NUMBER}\.pt")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RETIRED = re.compile(r"(?P<name>.*\.pt)\.branch(?P<branch>0|[1-9][0-9]{0,8})")

MOST_BRANCHES = 10**9
"""Branches are numbered from 0 to this, exclusive."""

_AT_THE_END = 2


class Position(NamedTuple):
    """The last batch before a checkpoint, zero-based; positions are ordered as training is."""

    task: int
    epoch: int
    batch: int


def checkpoint_name(task: int, epoch: int, batch: int) -> str:
    """Return the file name of the checkpoint taken after ``batch`` of ``epoch`` of ``task``.

    Raises:
        ValueError: An index is negative.
    """
    if min(task, epoch, batch) < 0:
        raise ValueError(f"task {task}, epoch {epoch}, batch {batch}: indices start at 0")
    return f"checkpoint_task{task}_epoch{epoch}_batch{batch}.pt"


def parse_name(name: str) -> Position | None:
    """Return the position in a file name that `checkpoint_name` made; None for any other name."""
    match = _NAME.fullmatch(name)
    return Position(*map(int, match.groups())) if match else None


def retired_name(name: str, branch: int) -> str:
    """Return the name of the checkpoint ``name`` once ``branch`` is abandoned."""
    return f"{name}.branch{branch}"


def parse_retired(name: str) -> tuple[str, int] | None:
    """Return the checkpoint and the branch in a name that `retired_name` made; None for others."""
    match = _RETIRED.fullmatch(name)
    if match is None or parse_name(match["name"]) is None:
        return None
    return match["name"], int(match["branch"])


def is_checkpoint(name: str) -> bool:
    """Tell whether a file name is that of a checkpoint, retired ones included."""
    return parse_name(name) is not None or parse_retired(name) is not None


def is_sha256(value: object) -> bool:
    """Tell whether ``value`` is a SHA-256 as it names objects: 64 lower-case hexadecimal digits."""
    return type(value) is str and _SHA256.fullmatch(value) is not None


def save_due(step: int, every: int) -> bool:
    """Tell whether a checkpoint is due after optimizer step ``step``, counted from 1.

    Args:
        step: Optimizer steps taken so far.
        every: Steps between checkpoints; 0 for never.
    """
    return every > 0 and step > 0 and step % every == 0


def retained(
    positions: Iterable[Position],
    keep_last: int,
    *,
    current: Position,
    done: Collection[int] = (),
) -> set[Position]:
    """Return which checkpoints stay once the one at ``current`` is durable.

    The last ``keep_last`` of the task in training and the final one of each completed task stay.
    Of the newest completed task the one before the final one stays too, unless ``keep_last`` is 1:
    a damaged file then costs the steps since, not the run.
    A task is complete when a later one has a checkpoint, or when it is in ``done``. Checkpoints
    ahead of ``current`` stay and never count: the run has not reached them (they were skipped as
    damaged, or it resumed from an older one).

    Args:
        positions: Every checkpoint.
        keep_last: How many of the task in training, at least 1.
        current: The checkpoint that was committed last.
        done: Tasks whose newest checkpoint is final.

    Raises:
        ValueError: ``keep_last`` is below 1.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}; expected at least 1")
    ordered = sorted(positions)
    reached = [position for position in ordered if position <= current]
    kept = {position for position in ordered if position > current}
    for task in {position.task for position in reached}:
        own = [position for position in reached if position.task == task]
        if task < current.task:
            stay = 1
        else:
            stay = min(keep_last, _AT_THE_END) if task in done else keep_last
        kept.update(own[-stay:])
    return kept
