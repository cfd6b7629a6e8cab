"""From a verified checkpoint to a run that resumes from it, perhaps with other settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plora_cl.checkpoint.snapshot.compatibility import (
    Acceptance,
    SettingChange,
    require_acceptable,
    require_unchanged,
    task_changes,
    value_changes,
)
from plora_cl.checkpoint.snapshot.loading import Resumable
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.checkpoint.store.branches import continuation
from plora_cl.checkpoint.store.output_files import recording, retire_results
from plora_cl.checkpoint.store.store import CheckpointEntry
from plora_cl.checkpoint.tools.fork import accepted_by_fork
from plora_cl.compute.environment import IMPACTS
from plora_cl.config.schema import Settings, experiment_folder, shape_settings
from plora_cl.impact import Impact
from plora_cl.state import Phase, StateDict, Stateful
from plora_cl.training.adapting import adapted, refusing_what_does_not_fit
from plora_cl.training.own_methods import method_changes
from plora_cl.training.run.run import Run
from plora_cl.training.setting_changes import (
    compared,
    earlier_to_fork,
    is_finished,
    setting_changes,
)
from plora_cl.training.task_notes import held_out_differently, tell_of_tasks

ENVIRONMENT = "environment."
"""Prefix of the keys of facts about the machine."""

_ALL_DATA = "data"


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came of a run whose state was restored.

    Attributes:
        accepted: What changes the trajectory from here on.
        is_branch: The folder holds checkpoints that come after the restored one. The run has to
            save at once, so that none of them is taken for its own.
    """

    accepted: Sequence[SettingChange]
    is_branch: bool


def resume_run(resumable: Resumable, run: Run, settings: Settings, *, accept: bool) -> None:
    """Restore ``run`` and prepare its folder for what it learns next.

    Args:
        resumable: A verified checkpoint.
        run: A new one.
        settings: Those of ``run``.
        accept: Accept changes of the trajectory.

    Raises:
        IncompatibleCheckpointError: Something differs that was not accepted or cannot be.
        CheckpointError: A component does not hold what was loaded into it, or the disk refused.
    """
    folder, entry, reporter = experiment_folder(settings), resumable.entry, run.reporter
    reporter.message(f"Loading checkpoint from {entry.path}...")
    run.disk.require()  # loading took its time
    accepted = accept or accepted_by_fork(folder, entry)
    resumed = restore_run(resumable, run, settings, accept=accepted)
    branch, cursor = run.checkpointer.trajectory.branch, run.components.cursor
    if resumed.is_branch:
        with recording(run.components.run_log.path):
            run.components.run_log.set_aside(branch)
    if resumed.accepted:
        run.components.run_log.append(
            {
                "event": "changed",
                "step": cursor.step,
                "task": cursor.task,
                "changes": [
                    {"key": change.key, "checkpoint": change.before, "now": change.now}
                    for change in resumed.accepted
                ],
            }
        )
    if resumed.is_branch:
        entry = run.begin_branch(entry)
    run.checkpointer.tidy(entry)
    retire_results(folder / "results", branch=branch, filesystem=run.disk)
    known = resumable.snapshot.facts.identity.get("data")
    if known is not None:  # of the others was told when they were new
        tell_of_tasks(run.components.tasks[len(known) :], reporter)
    if not run.components.finished:
        reporter.message(
            f"Checkpoint loaded! Resuming from task {cursor.task}, epoch {cursor.epoch}, "
            f"batch {cursor.batch}"
        )


def restore_run(
    resumable: Resumable,
    run: Run,
    settings: Settings,
    *,
    accept: Acceptance,
    in_place_of: Mapping[str, Stateful] | None = None,
) -> Resumed:
    """Make ``run`` the one that ``resumable`` is a snapshot of.

    Every difference is reported before anything is applied.

    Args:
        resumable: A verified checkpoint.
        run: A new one.
        settings: Those of ``run``.
        accept: Changes of the trajectory that are accepted: all of them, or some.
        in_place_of: Components that take the state as it was saved instead of the run's own. If it
            is None and every task is learned, another machine changes nothing, and other settings
            are refused.

    Raises:
        IncompatibleCheckpointError: Something differs that was not accepted or cannot be.
        CheckpointError: A component does not hold what was loaded into it.
    """
    path = resumable.entry.path
    with refusing_what_does_not_fit(path):
        changes = differences(resumable.snapshot, run, settings)
    for change in changes:
        run.reporter.message(str(change))
    accepted: Sequence[SettingChange] = []
    recorded: list[dict[str, str]] = []
    if in_place_of is None and is_finished(resumable.snapshot.cursor, len(run.components.tasks)):
        _require_same_results(changes, run, settings, resumable.entry)
    else:
        accepted = require_acceptable(changes, accept=accept, shape_settings=shape_settings())
        recorded = [change.recorded() for change in changes if _decides(change)]
    with refusing_what_does_not_fit(path):
        live = run.components.random.state_dict()["cuda"]
        snapshot = resumable.snapshot.with_moved_generators(
            live, run.checkpointer.facts.environment
        )
        if accepted:
            changed = {change.key for change in accepted}
            snapshot = adapted(snapshot, run, settings, changed, keep=in_place_of or ())
    following = continuation(
        run.checkpointer.store,
        resumable.entry,
        resumable.manifest,
        recorded,
        by_choice=any(not change.key.startswith(ENVIRONMENT) for change in accepted),
    )
    with refusing_what_does_not_fit(path):
        run.components.restore(replace(resumable, snapshot=snapshot), in_place_of)
    run.checkpointer.continue_on(following.trajectory)
    return Resumed(accepted, following.is_branch)


def _require_same_results(
    changes: Sequence[SettingChange], run: Run, settings: Settings, entry: CheckpointEntry
) -> None:
    """Refuse changes of a finished run, but for those of the machine: nothing is computed."""
    others = [c for c in changes if not c.key.startswith(ENVIRONMENT) and c.key != _ALL_DATA]
    require_acceptable(others, accept=True, shape_settings=shape_settings())
    require_unchanged(
        others,
        way_out=lambda refused: (
            "restore them to see the results; to learn with them "
            + earlier_to_fork(entry, settings, refused)
        ),
    )
    if len(others) < len(changes):
        run.reporter.message(
            "Nothing is left to learn: the results are those of the environment in the checkpoint"
        )


def _decides(change: SettingChange) -> bool:
    """Tell whether the run computes something else, or more than it would have."""
    return change.impact is not Impact.HARMLESS or change.key.startswith("tasks[")


class StateHolder:
    """Holds a state for a component that the caller owns, as a `Stateful`."""

    def __init__(self) -> None:
        self._state: StateDict = {}

    def state_dict(self) -> StateDict:
        """Return what was loaded."""
        return self._state

    def load_state_dict(self, state: StateDict, /) -> None:
        """Take ``state``."""
        self._state = state


def differences(snapshot: Snapshot, run: Run, settings: Settings) -> list[SettingChange]:
    """Return every difference between a checkpoint and a run that is to resume from it."""
    inside = snapshot.cursor["phase"] != Phase.DONE
    validated = snapshot.state["early_stopping"]["best"] is not None
    found = setting_changes(snapshot.facts.settings, snapshot.cursor, settings, validated=validated)
    base = {"base weights": snapshot.objects["model/base"].sha256}
    found += value_changes(
        base, {"base weights": run.checkpointer.base_digest}, {"base weights": Impact.STRUCTURAL}
    )
    saved, current = _contents(snapshot.facts.identity), _contents(run.checkpointer.facts.identity)
    data, data_now = saved.pop("data"), current.pop("data")
    if data is None:  # the checkpoint was written before tasks were recorded one by one
        found.append(SettingChange(Impact.TRAJECTORY, _ALL_DATA, "not recorded", "recorded"))
    else:
        of_tasks = task_changes(
            data, data_now, task=snapshot.cursor["task"], inside=inside, joint=settings.joint
        )
        found += held_out_differently(of_tasks, *compared(snapshot.facts.settings, settings))
    found += value_changes(saved, current, {})
    found += method_changes(snapshot.facts.identity, run.checkpointer.facts.identity)
    environment = run.checkpointer.facts.environment
    return found + value_changes(
        snapshot.facts.environment, environment, IMPACTS, prefix=ENVIRONMENT
    )


def _contents(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: identity.get(name) for name in ("encoder", "data")}
