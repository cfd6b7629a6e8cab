"""How a run differs from the checkpoint it resumes, and which differences are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from plora_cl.checkpoint.format.naming import is_sha256
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.impact import Impact

INSIDE_A_TASK = (
    "the checkpoint is inside a task and counts its steps: resume from the last checkpoint of a "
    "task to change it"
)
LEARNED_TOGETHER = "joint training learns all its tasks in one stage"
Acceptance: TypeAlias = bool | Collection[str]
"""Which changes of the trajectory are accepted: all, none, or those whose key or
`SettingChange.difference` is given."""

START_AFRESH = (
    "restore them, start afresh with --overwrite, or choose another --experiment-name; "
    "--accept-changes does not help here"
)
"""The way out where a run cannot resume its checkpoint."""

ACCEPTING = "restore them, or accept them with --accept-changes"
"""The way out where resuming would compute something else."""

_COUNTED_IN_BATCHES = ("batch_size", "gradient_accumulation_steps")
_NOTHING = "nothing"
_MOST_TEXT = 1000
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One difference.

    Attributes:
        impact: What it does to the run.
        key: What differs, for instance the name of a setting.
        before: In the checkpoint, as text; each later checkpoint records it, and so a long one is
            cut off and identified by its digest.
        now: In this run, as text.
        reason: Why it is structural, if the key does not say it.
    """

    impact: Impact
    key: str
    before: str
    now: str
    reason: str = ""

    @property
    def difference(self) -> str:
        """What differs, without the impact."""
        return f"{self.key}: {self.before} -> {self.now}"

    def recorded(self) -> dict[str, str]:
        """Return what checkpoints and results record of it."""
        return {
            "key": self.key,
            "before": self.before,
            "now": self.now,
            "impact": str(self.impact),
        }

    def __str__(self) -> str:
        """Return the line of a diff."""
        return f"{self.impact}: {self.difference}"


def value_changes(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    impacts: Mapping[str, Impact],
    *,
    prefix: str = "",
) -> list[SettingChange]:
    """Return how plain JSON values differ, sorted by key.

    Their JSON is compared, in which True differs from 1, and 0.0 from -0.0 and 0.

    Args:
        saved: What the checkpoint was made with.
        current: What this run has.
        impacts: Class of each key; one without is trajectory-changing.
        prefix: Put before each key in the result.
    """
    before, now = _as_json(saved), _as_json(current)
    return [
        SettingChange(
            impacts.get(key, Impact.TRAJECTORY),
            prefix + key,
            _text(saved[key]) if key in saved else _NOTHING,
            _text(current[key]) if key in current else _NOTHING,
        )
        for key in sorted({*saved, *current})
        if before.get(key) != now.get(key)
    ]


def _as_json(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True) for key, value in values.items()}


def setting_changes(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    impacts: Mapping[str, Impact],
    *,
    inside: bool,
    validated: bool,
) -> list[SettingChange]:
    """Return how settings differ, each with its impact at this checkpoint.

    Args:
        saved: Those of the checkpoint.
        current: Those of this run.
        impacts: Class of each setting.
        inside: The task at which the checkpoint stands is not finished.
        validated: One of its epochs is the best one so far.
    """
    found = value_changes(saved, current, impacts)
    return [_in_context(change, inside=inside, validated=validated) for change in found]


def _in_context(change: SettingChange, *, inside: bool, validated: bool) -> SettingChange:
    if change.key in _COUNTED_IN_BATCHES and inside:
        return as_structural(change, INSIDE_A_TASK)
    if change.key == "early_stopping_metric" and inside and validated:
        return as_structural(
            change, "the best epoch of the task so far was chosen by the other one"
        )
    if change.key == "precision" and "'fp16'" in (change.before, change.now):
        return as_structural(change, "fp16 has a gradient scale that the other one has not")
    return change


def task_changes(
    saved: Sequence[Mapping[str, Any]],
    current: Sequence[Mapping[str, Any]],
    *,
    task: int,
    inside: bool,
    joint: bool = False,
) -> list[SettingChange]:
    """Return how two streams of tasks differ.

    A task that was begun keeps its name and classes. Appended tasks change nothing of what happens
    to those before them, unless all are learned together.

    Args:
        saved: For each task of the checkpoint ``name``, ``classes``, number of training
            ``examples``, and the digests of ``train``, ``validation`` and ``test``.
        current: The same of this run.
        task: Zero-based task at which the checkpoint stands.
        inside: That task is not finished.
        joint: The tasks are learned in one stage.
    """
    found: list[SettingChange] = []
    for index in range(max(len(saved), len(current))):
        name = f"tasks[{index}]"
        impact = Impact.STRUCTURAL if index <= task else Impact.TRAJECTORY
        if index >= len(saved):
            appended = f"{current[index]['name']!r}, appended"
            change = SettingChange(Impact.HARMLESS, name, _NOTHING, appended)
            found.append(as_structural(change, LEARNED_TOGETHER) if joint else change)
        elif index >= len(current):
            found.append(SettingChange(impact, name, _text(saved[index]["name"]), _NOTHING))
        else:
            impacts = {"name": impact, "classes": impact}
            found += value_changes(saved[index], current[index], impacts, prefix=f"{name}.")
    if not inside:
        return found
    counted = {f"tasks[{k}].examples" for k in range(0 if joint else task, task + 1)}
    return [as_structural(c, INSIDE_A_TASK) if c.key in counted else c for c in found]


def as_structural(change: SettingChange, reason: str) -> SettingChange:
    """Return ``change`` as one that is always refused, for ``reason``."""
    return SettingChange(Impact.STRUCTURAL, change.key, change.before, change.now, reason)


def require_acceptable(
    changes: Sequence[SettingChange],
    *,
    accept: Acceptance,
    shape_settings: Collection[str],
    way_out: str = START_AFRESH,
    accepting: str = ACCEPTING,
) -> list[SettingChange]:
    """Make sure that a run may resume a checkpoint; return the changes that were accepted.

    Args:
        changes: How they differ.
        accept: Changes of the trajectory are wanted: all of them, or some.
        shape_settings: Those that decide the shapes of tensors, for instance ``lora_r``.
        way_out: What to do about a structural change.
        accepting: What to do about a change of the trajectory.

    Raises:
        IncompatibleCheckpointError: There is a structural change, or one of the trajectory that
            was not accepted; one line lists all of both kinds, and the way out.
    """
    structural = [change for change in changes if change.impact is Impact.STRUCTURAL]
    trajectory = [change for change in changes if change.impact is Impact.TRAJECTORY]
    refused = [change for change in trajectory if not _is_accepted(change, accept)]
    if not structural and not refused:
        return trajectory
    if structural:
        shapes_differ = any(change.key in shape_settings for change in structural)
        what = (
            "state_dict size mismatch: "
            if shapes_differ
            else "the checkpoint has no place in this run: "
        )
        listed = sorted(structural + refused, key=lambda change: change.key)
    else:
        what = "resuming would not compute what the run of the checkpoint would have: "
        listed = refused
        way_out = accepting
    lines = "; ".join(_refusal(change) for change in listed)
    raise IncompatibleCheckpointError(f"{what}{lines} ({way_out})")


def moved_generators(
    saved: Sequence[Any], live: Sequence[Any], *, before: int, now: int
) -> list[Any]:
    """Return the states of the generators of all GPUs, with that of the GPU in use at its index.

    Args:
        saved: One state for each GPU that was visible to the checkpoint's run.
        live: One for each that is visible now.
        before: Index of the GPU that run used.
        now: Index of the one this run uses.
    """
    if len(saved) == len(live) and before == now:
        return list(saved)
    found = list(live)
    if before < len(saved) and now < len(found):
        found[now] = saved[before]
    return found


def require_unchanged(
    changes: Sequence[SettingChange], *, way_out: Callable[[Sequence[SettingChange]], str]
) -> None:
    """Make sure that the results of a finished run are those of its settings.

    Args:
        changes: Differences between the run and its settings now.
        way_out: Says what to do about those that are refused.

    Raises:
        IncompatibleCheckpointError: Something would change the trajectory; since nothing is left to
            learn it would have no effect, accepted or not.
    """
    refused = [change for change in changes if change.impact is not Impact.HARMLESS]
    if refused:
        lines = "; ".join(_refusal(change) for change in refused)
        raise IncompatibleCheckpointError(
            f"every task is learned, and nothing would be computed with other settings: {lines} "
            f"({way_out(refused)})"
        )


def _is_accepted(change: SettingChange, accept: Acceptance) -> bool:
    if isinstance(accept, bool):
        return accept
    return change.key in accept or change.difference in accept


def _refusal(change: SettingChange) -> str:
    line = f"{change.key}: {change.before} in the checkpoint, now {change.now}"
    return f"{line} - {change.reason}" if change.reason else line


def _text(value: object) -> str:
    if isinstance(value, str) and is_sha256(value):
        return value[:12]
    text = repr(value)
    if len(text) <= _MOST_TEXT:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_SHOWN]}... ({len(text)} characters, sha256 {digest})"
