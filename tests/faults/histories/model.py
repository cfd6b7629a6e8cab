"""What must hold of an experiment, whatever happened to it: sequences are held to this model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from faults.histories import reading
from faults.histories.references import RELEVANT, History

INSIDE_A_TASK = ("batch_size", "gradient_accumulation_steps")
"""Settings that a checkpoint inside a task cannot go on with another value of."""


PHASES = ("prepare", "train", "validate", "consolidate", "evaluate", "done")


@dataclass
class Experiment:
    """What is known of one experiment folder.

    Attributes:
        folder: Where it is.
        wanted: The settings that its user wants at present.
        promised: Checkpoints that have to be there, by name and history, and the phase in which
            each was announced: a later one of the same batch takes the place of an earlier one.
        pinned: Those that were pinned, and not unpinned since.
        accepted: Settings that need no acceptance, since they were given when it was forked, and
            the checkpoint, as SHA-256, that it was forked from.
        config_is_ours, log_is_ours, lineage_is_ours: Whether nobody damaged them.
    """

    folder: Path
    wanted: dict[str, Any]
    promised: dict[tuple[str, History], str] = field(default_factory=dict)
    pinned: set[tuple[str, History]] = field(default_factory=set)
    accepted: tuple[str, str] = ("", "")
    config_is_ours: bool = True
    log_is_ours: bool = True
    lineage_is_ours: bool = True

    @property
    def name(self) -> str:
        return self.folder.name

    def has_accepted(self, settings: str, sha256: str) -> bool:
        """Whether it was made to go on with ``settings`` from that very checkpoint."""
        return self.accepted == (settings, sha256)

    def unpin(self, name: str, history: History | None = None) -> None:
        """Note that what is called ``name``, of one or any history, may go from now on."""
        gone = {k for k in self.pinned if k[0] == name and history in (None, k[1])}
        self.pinned -= gone
        self.promised = {key: phase for key, phase in self.promised.items() if key not in gone}

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "checkpoints").glob("*.pt"))


@dataclass
class Knowledge:
    """What is known of all experiments of a sequence.

    Attributes:
        histories: How each checkpoint, by SHA-256, came to be.
        places: Where in the order of checkpoints each cursor is that a history departs at.
        within: Histories that change within one phase, between two units of its work. A cursor
            does not say how many are done, so that nothing can be computed to hold them against.
    """

    histories: dict[str, History] = field(default_factory=dict)
    places: dict[str, tuple[int, ...]] = field(default_factory=dict)
    within: set[History] = field(default_factory=set)


def relevant(settings: Mapping[str, Any]) -> str:
    """Return the settings that decide the result, as they stand in a history."""
    return json.dumps({name: settings[name] for name in RELEVANT}, sort_keys=True)


def going_on(history: History, cursor: str, settings: Mapping[str, Any]) -> History:
    """Return the history of what is computed from ``cursor`` on with ``settings``."""
    now = relevant(settings)
    return history if now == history[-1][1] else (*history, (cursor, now))


def is_of(after: History, before: History) -> bool:
    """Tell whether ``after`` is ``before``, or goes on with it and has nothing but more tasks."""
    if after[: len(before)] != before:
        return False
    then, now = settings_of(before), settings_of(after)
    tasks = then.pop("tasks")
    return now.pop("tasks")[: len(tasks)] == tasks and now == then


def is_refused(
    then: Mapping[str, Any], now: Mapping[str, Any], cursor: Mapping[str, Any], *, accept: bool
) -> bool:
    """Tell whether a run of other settings may not go on from a checkpoint, by the documents."""
    changed = {name for name in RELEVANT if then[name] != now[name]}
    if "lora_r" in changed:
        return True
    if changed and cursor["phase"] == "done" and cursor["task"] == len(now["tasks"]) - 1:
        return True  # nothing would be computed with them
    if cursor["phase"] != "done" and changed & set(INSIDE_A_TASK):
        return True
    if "tasks" in changed:
        before, after = then["tasks"], now["tasks"]
        common = min(len(before), len(after))
        assert before[:common] == after[:common]
        changed.discard("tasks")
        if len(after) < len(before):
            if len(after) <= cursor["task"]:
                return True
            changed.add("a task that was not begun")
    return bool(changed) and not accept


def kept(
    there: Collection[str],
    current: str,
    keep_last: int,
    *,
    done: bool,
    budget: int | None,
) -> set[str]:
    """Return what retention leaves at least, of what is ``there`` once ``current`` is durable."""
    places = {name: place for name in there if (place := reading.position(name)) is not None}
    here = reading.position(current)
    assert here is not None
    ordered = sorted(places, key=lambda name: places[name])
    left = {name for name in ordered if places[name] > here} | {current}
    left |= {name.removesuffix(".pin") for name in there if name.endswith(".pt.pin")} & {*places}
    for task in {place[0] for place in places.values() if place <= here}:
        own = [name for name in ordered if places[name][0] == task and places[name] <= here]
        complete = task < here[0] or done
        count = 1 if complete else 0 if budget is not None else keep_last
        left |= set(own[len(own) - count :] if count else ())
    return left


def leads_to(name: str, history: History, present: History, known: Knowledge) -> bool:
    """Tell whether a checkpoint is one of the present branch, or of what led to it."""
    if history == present:
        return True
    if present[: len(history)] != history:
        return False
    place = reading.position(name)
    return place is not None and place <= known.places[present[len(history)][0]]


def broken_promises(experiment: Experiment, known: Knowledge) -> dict[tuple[str, History], str]:
    """Return what was announced as saved, is not let go by retention, and is not there or whole."""
    found = [*reading.checkpoints(experiment.folder), *reading.retired(experiment.folder)]

    def is_kept(name: str, history: History, phase: str) -> bool:
        there = [c for c in found if reading.name_of(c.path.name) == name]
        of = [(c, known.histories.get(c.sha256)) for c in there]
        # A later phase takes the place of an earlier one, with more tasks perhaps.
        right = [c for c, its in of if its is not None and is_of(its, history)]
        return any(c.is_intact and not is_before(c, phase) for c in right)

    promised = experiment.promised.items()
    return {key: phase for key, phase in promised if not is_kept(*key, phase)}


def is_before(checkpoint: reading.Checkpoint, phase: str) -> bool:
    """Tell whether a checkpoint is of an earlier phase after the same batch."""
    assert checkpoint.manifest is not None
    return PHASES.index(checkpoint.manifest["cursor"]["phase"]) < PHASES.index(phase)


def settings_of(history: History) -> dict[str, Any]:
    """Return the relevant settings at the end of a history."""
    found: dict[str, Any] = json.loads(history[-1][1])
    return found


def after_the_gap(log: bytes) -> list[bytes]:
    """Return the lines of a run log from the last gap on: what comes after a log was lost."""
    lines = log.splitlines()
    gaps = [n for n, line in enumerate(lines) if b'"event": "gap"' in line]
    return lines[gaps[-1] + 1 :] if gaps else lines


def is_end_of(lines: Sequence[bytes], whole: bytes) -> bool:
    """Tell whether ``lines`` are the last ones of a log."""
    return not lines or whole.splitlines()[-len(lines) :] == list(lines)


def difference(log: bytes, expected: bytes) -> str:
    """Return the first line in which two logs differ, and what was expected; empty if none."""
    lines, others = log.splitlines(), expected.splitlines()
    for number, (line, other) in enumerate(zip_longest(lines, others, fillvalue=b"nothing")):
        if line != other:
            return f"line {number}: {line.decode()} in place of {other.decode()}"
    return ""
