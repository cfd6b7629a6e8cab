"""The computation that a checkpoint belongs to, and its branch in the folder.

Of two checkpoints of one trajectory, the later one is, to the bit, what a run computes that resumes
from the earlier one. Every change of what is computed begins another trajectory. The identifier of
a trajectory is a digest of what decides it: equal runs have equal identifiers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from plora_cl.checkpoint.format.naming import MOST_BRANCHES, is_sha256, parse_name
from plora_cl.errors import CorruptCheckpointError


@dataclass(frozen=True, slots=True)
class Departure:
    """The checkpoint at which one trajectory was left for another.

    Attributes:
        trajectory: The one that was left; None where it is not known.
        branch: The branch that was left; None where it was in another folder.
        checkpoint: Name of the checkpoint that the other one resumed from.
        task: Zero-based task of that checkpoint.
        phase: Its next phase.
        step: Its number of optimizer steps.
        state_digest: Digest of its state.
        changes: The differences from there on, each with ``key``, ``before``, ``now`` and
            ``impact``; empty where an abandoned trajectory was resumed.
    """

    trajectory: str | None
    branch: int | None
    checkpoint: str
    task: int
    phase: str
    step: int
    state_digest: str
    changes: tuple[Mapping[str, str], ...]

    @property
    def leads_to(self) -> str:
        """Identifier of the trajectory that begins here."""
        decisive = self.to_plain()
        del decisive["branch"]  # does not decide what is computed
        if self.trajectory is not None:
            del decisive["state_digest"]  # follows from the rest, except for measured times
        return digest_of(decisive)

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**asdict(self), "changes": [dict(change) for change in self.changes]}

    @classmethod
    def from_plain(cls, plain: object) -> Departure:
        """Read `to_plain` back; keys that this version does not know are ignored.

        Raises:
            CorruptCheckpointError: It is not a departure.
        """
        if not isinstance(plain, Mapping) or not _is_departure(plain):
            raise CorruptCheckpointError("the manifest has no valid trajectory: history")
        fields = {name: plain[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "changes": tuple(dict(change) for change in plain["changes"])})


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The computation that a checkpoint belongs to.

    Attributes:
        id: SHA-256 of what decides it; None in checkpoints that do not record it.
        branch: Number of the branch in the folder, below `MOST_BRANCHES`. Runs resume from the
            branch with the greatest number.
        history: Every trajectory that was left before this one, in order.
    """

    id: str | None = None
    branch: int = 0
    history: tuple[Departure, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        history = [departure.to_plain() for departure in self.history]
        return {"id": self.id, "branch": self.branch, "history": history}

    @classmethod
    def from_plain(cls, plain: object) -> Trajectory:
        """Read `to_plain` back; None is the unknown trajectory.

        Raises:
            CorruptCheckpointError: It is not a trajectory.
        """
        if plain is None:
            return UNKNOWN
        if (
            not isinstance(plain, Mapping)
            or not _is_digest_or_none(plain.get("id"))
            or not _is_branch(plain.get("branch"))
            or not isinstance(plain.get("history"), list)
        ):
            raise CorruptCheckpointError("the manifest has no valid trajectory")
        history = tuple(Departure.from_plain(departure) for departure in plain["history"])
        return cls(plain["id"], plain["branch"], history)

    def left_at(self, departure: Departure) -> Trajectory:
        """Return the one that continues at ``departure`` with its changes, on the same branch."""
        history = (*self.history, departure)
        if not departure.changes:
            return replace(self, history=history)
        return replace(self, id=departure.leads_to, history=history)

    def moved_elsewhere(self) -> Trajectory:
        """Return it for another folder, whose branches are numbered on their own."""
        history = (replace(departure, branch=None) for departure in self.history)
        return replace(self, history=tuple(history))


UNKNOWN = Trajectory()
"""The trajectory of checkpoints that do not record one."""


def digest_of(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain JSON, independent of the order of its keys.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_branch(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST_BRANCHES


def _is_digest_or_none(value: object) -> bool:
    return value is None or is_sha256(value)


def _is_departure(plain: Mapping[str, Any]) -> bool:
    changes = plain.get("changes")
    return (
        plain.keys() >= Departure.__dataclass_fields__.keys()
        and _is_digest_or_none(plain["trajectory"])
        and (plain["branch"] is None or _is_branch(plain["branch"]))
        and isinstance(plain["checkpoint"], str)
        and parse_name(plain["checkpoint"]) is not None
        and _is_count(plain["task"])
        and isinstance(plain["phase"], str)
        and _is_count(plain["step"])
        and isinstance(plain["state_digest"], str)
        and isinstance(changes, list)
        and all(_is_change(change) for change in changes)
    )


def _is_change(plain: object) -> bool:
    return (
        isinstance(plain, Mapping)
        and plain.keys() >= {"key", "before", "now", "impact"}
        and all(isinstance(value, str) for value in plain.values())
    )
