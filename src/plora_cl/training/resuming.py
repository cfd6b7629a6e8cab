"""From a verified checkpoint to a run that goes on from it, perhaps under other circumstances."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plora_cl.checkpoint.snapshot.compatibility import (
    Acceptance,
    Change,
    require_acceptable,
    require_unchanged,
    task_changes,
    value_changes,
)
from plora_cl.checkpoint.snapshot.loading import Resumable
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.checkpoint.store.branches import Continuation, continuation
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.compute.environment import FACTS
from plora_cl.config.schema import SHAPE_SETTINGS, Settings
from plora_cl.evaluation.matrix import UNKNOWN
from plora_cl.impact import Impact
from plora_cl.state import Cursor, Phase, StateDict, Stateful
from plora_cl.training.own_methods import method_changes
from plora_cl.training.run.components import UNDER_WAY
from plora_cl.training.run.optimization import Optimization
from plora_cl.training.run.run import Run
from plora_cl.training.setting_changes import compared, is_finished, setting_changes
from plora_cl.training.task_notes import held_out_differently
from plora_cl.training.unfit_state import refusing_what_does_not_fit

ENVIRONMENT = "environment."
"""What the keys of facts about the machine begin with."""

_ALL_DATA = "data"


@dataclass(frozen=True, slots=True)
class Resumed:
    """How a run goes on.

    Attributes:
        accepted: What changes the trajectory from here on.
        is_branch: Checkpoints are there that are not gone on from: the first one of this run is due
            at once, so that nothing ever takes them for its own.
    """

    accepted: Sequence[Change]
    is_branch: bool


def go_on_from(
    resumable: Resumable,
    run: Run,
    settings: Settings,
    *,
    accept: Acceptance,
    in_place_of: Mapping[str, Stateful] | None = None,
) -> Resumed:
    """Make ``run`` the one that ``resumable`` is a snapshot of.

    Every difference is reported, before anything is applied.

    Args:
        resumable: A verified checkpoint.
        run: Not begun yet.
        settings: Those of ``run``.
        accept: Changes of the trajectory are wanted: all of them, or some.
        in_place_of: Components that take the state as it was saved instead of the run's own. Where
            it is None and every task is learned, another machine changes nothing, and other
            settings are refused.

    Raises:
        IncompatibleCheckpointError: Something differs that was not accepted or cannot be.
        CheckpointError: A component does not hold what was loaded into it.
    """
    with refusing_what_does_not_fit(resumable.entry.path):
        changes = differences(resumable.snapshot, run, settings)
    for change in changes:
        run.reporter.message(str(change))
    tasks = len(run.components.tasks)
    if in_place_of is None and is_finished(resumable.snapshot.cursor, tasks):
        return _show_again(resumable, run, changes)
    accepted = require_acceptable(changes, accept=accept, shape_settings=SHAPE_SETTINGS)
    with refusing_what_does_not_fit(resumable.entry.path):
        snapshot = _moved(resumable.snapshot, run)
        if accepted:
            changed = {change.key for change in accepted}
            snapshot = _adapted(snapshot, run, settings, changed, keep=in_place_of or ())
    following = _following(
        resumable,
        run,
        [_recorded(change) for change in changes if _decides(change)],
        by_choice=any(not change.key.startswith(ENVIRONMENT) for change in accepted),
    )
    with refusing_what_does_not_fit(resumable.entry.path):
        run.components.restore(replace(resumable, snapshot=snapshot), in_place_of)
    run.checkpointer.go_on_with(following.trajectory)
    return Resumed(accepted, following.is_branch)


def _show_again(resumable: Resumable, run: Run, changes: Sequence[Change]) -> Resumed:
    """Make ``run`` the finished one, whatever the machine: nothing is computed any more."""
    others = [c for c in changes if not c.key.startswith(ENVIRONMENT) and c.key != _ALL_DATA]
    require_acceptable(others, accept=True, shape_settings=SHAPE_SETTINGS)
    require_unchanged(others, folder=str(resumable.entry.path.parent.parent))
    if len(others) < len(changes):
        run.reporter.message(
            "Nothing is left to learn: the results are those of the environment in the checkpoint"
        )
    following = _following(resumable, run, [], by_choice=False)
    with refusing_what_does_not_fit(resumable.entry.path):
        snapshot = _moved(resumable.snapshot, run)
        run.components.restore(replace(resumable, snapshot=snapshot))
    run.checkpointer.go_on_with(following.trajectory)
    return Resumed([], following.is_branch)


def _following(
    resumable: Resumable, run: Run, changes: Sequence[Mapping[str, str]], *, by_choice: bool
) -> Continuation:
    entry = resumable.entry
    manifest = CheckpointStore(entry.path.parent).manifest(entry)
    return continuation(run.checkpointer.store, entry, manifest, changes, by_choice=by_choice)


def _decides(change: Change) -> bool:
    """Tell whether what comes is computed otherwise, or beyond what would have been the end."""
    return change.impact is not Impact.HARMLESS or change.key.startswith("tasks[")


def _recorded(change: Change) -> dict[str, str]:
    """Return what checkpoints and results say of a change."""
    return {
        "key": change.key,
        "before": change.before,
        "now": change.now,
        "impact": str(change.impact),
    }


def log_changes(accepted: Sequence[Change], run: Run) -> None:
    """Write into the run log that from here on something else is computed."""
    run.components.run_log.append(
        {
            "event": "changed",
            "step": run.components.cursor.step,
            "task": run.components.cursor.task,
            "changes": [
                {"key": change.key, "checkpoint": change.before, "now": change.now}
                for change in accepted
            ],
        }
    )


class Held:
    """Keeps a state for a component that the caller owns."""

    def __init__(self) -> None:
        self._state: StateDict = {}

    def state_dict(self) -> StateDict:
        """Return what was loaded."""
        return self._state

    def load_state_dict(self, state: StateDict, /) -> None:
        """Take ``state``."""
        self._state = state


def differences(snapshot: Snapshot, run: Run, settings: Settings) -> list[Change]:
    """Return every difference between a checkpoint and a run that is to go on from it."""
    inside = snapshot.cursor["phase"] != Phase.DONE
    validated = snapshot.state["early_stopping"]["best"] is not None
    found = setting_changes(snapshot.settings, snapshot.cursor, settings, validated=validated)
    base = {"base weights": snapshot.objects["model/base"].sha256}
    found += value_changes(
        base, {"base weights": run.checkpointer.base_digest}, {"base weights": Impact.STRUCTURAL}
    )
    saved, current = _contents(snapshot.identity), _contents(run.checkpointer.identity)
    data, data_now = saved.pop("data"), current.pop("data")
    if data is None:  # the checkpoint was written before tasks were recorded one by one
        found.append(Change(Impact.TRAJECTORY, _ALL_DATA, "not recorded", "recorded"))
    else:
        of_tasks = task_changes(
            data, data_now, task=snapshot.cursor["task"], inside=inside, joint=settings.joint
        )
        found += held_out_differently(of_tasks, *compared(snapshot.settings, settings))
    found += value_changes(saved, current, {})
    found += method_changes(snapshot.identity, run.checkpointer.identity)
    environment = run.checkpointer.environment
    return found + value_changes(snapshot.environment, environment, FACTS, prefix=ENVIRONMENT)


def _contents(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: identity.get(name) for name in ("encoder", "data")}


def _moved(snapshot: Snapshot, run: Run) -> Snapshot:
    """Return ``snapshot`` with random generators for the devices that are there now."""
    saved = snapshot.state["random"]
    live = run.components.random.state_dict()["cuda"]
    before, now = snapshot.environment.get("device_index", 0), run.checkpointer.environment
    cuda = moved_generators(saved["cuda"], live, before=before, now=now["device_index"])
    return replace(snapshot, state={**snapshot.state, "random": {**saved, "cuda": cuda}})


def moved_generators(
    saved: Sequence[Any], live: Sequence[Any], *, before: int, now: int
) -> list[Any]:
    """Return the states of the generators of all GPUs, that of the one in use moved to its place.

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


def _adapted(
    snapshot: Snapshot, run: Run, settings: Settings, changed: set[str], *, keep: Collection[str]
) -> Snapshot:
    """Return ``snapshot`` as it would be here, had the run had other settings than it had.

    State that repeats a setting would bring the old value back.
    """
    cursor = Cursor()
    cursor.load_state_dict(dict(snapshot.cursor))
    if cursor.phase is Phase.VALIDATE and settings.early_stopping_patience == 0:
        cursor.phase = Phase.TRAIN  # nothing to validate for any more
    run.components.rebuild(cursor)
    assert run.components.optimization is not None
    state = dict(snapshot.state)
    if not {"optimizer", "scheduler"} & set(keep):
        state["optimizer"], state["scheduler"] = _rescheduled(
            run.components.optimization, state["optimizer"], state["scheduler"]
        )
    if "seed" in changed:
        state["random"] = run.components.random.state_dict()
    others = {int(found[1]) for key in changed if (found := re.match(r"tasks\[(\d+)", key))}
    gone = {index for index in others if index > cursor.task}
    state["scores"] = _measured_under_other_settings(state["scores"], gone)
    state.pop(UNDER_WAY, None)  # a pass of which one half was made under other settings
    state["cursor"] = cursor.state_dict()
    return replace(snapshot, state=state, cursor=cursor.state_dict())


def _rescheduled(
    fresh: Optimization, optimizer: StateDict, scheduler: StateDict
) -> tuple[StateDict, StateDict]:
    """Return the states of an optimizer and its schedule with the rates and decay of ``fresh``."""
    schedule, groups = fresh.scheduler, fresh.optimizer.param_groups
    if len(groups) != len(optimizer["param_groups"]):
        return optimizer, scheduler  # loading them is going to be refused
    done = scheduler["last_epoch"]
    rates = [
        base * share(done)
        for base, share in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    param_groups = [
        {
            **saved,
            "lr": rate,
            "initial_lr": group["initial_lr"],
            "weight_decay": group["weight_decay"],
        }
        for saved, group, rate in zip(optimizer["param_groups"], groups, rates, strict=True)
    ]
    return (
        {**optimizer, "param_groups": param_groups},
        {**scheduler, "base_lrs": list(schedule.base_lrs), "_last_lr": rates},
    )


def _measured_under_other_settings(scores: StateDict, gone: Collection[int]) -> StateDict:
    """Return scores that nobody takes for what would be measured now.

    Args:
        scores: State of a `ScoreMatrix`.
        gone: Tasks that were not begun and are others now: scores on those mean nothing.
    """
    return {
        name: [[*cell[:-1], UNKNOWN] for cell in cells if cell[-4] not in gone]
        for name, cells in scores.items()
    }
