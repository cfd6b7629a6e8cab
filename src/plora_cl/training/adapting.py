"""The state of a checkpoint, as a run of other settings, or on another machine, needs it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from plora_cl.checkpoint.disk.errors import naming
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.config.schema import Settings
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.evaluation.matrix import UNKNOWN
from plora_cl.state import Cursor, Phase, StateDict
from plora_cl.training.run.components import UNDER_WAY
from plora_cl.training.run.optimization import Optimization
from plora_cl.training.run.run import Run


def adapted(
    snapshot: Snapshot, run: Run, settings: Settings, changed: set[str], *, keep: Collection[str]
) -> Snapshot:
    """Return ``snapshot`` as ``settings`` need it.

    State that repeats a setting would bring the old value back.

    Args:
        snapshot: Of a run with other settings.
        run: A new one.
        settings: Those of ``run``.
        changed: Keys of the settings and tasks that differ.
        keep: Components whose state stays as it was saved.

    Raises:
        IncompatibleCheckpointError: The cursor points at no batch of ``run``.
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
    state.pop(UNDER_WAY, None)  # half of its passes were made under other settings
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
    """Return scores that are never taken for what would be measured now.

    Args:
        scores: State of a `ScoreMatrix`.
        gone: Tasks that had not begun and are others now: scores on them mean nothing.
    """
    return {
        name: [[*cell[:-1], UNKNOWN] for cell in cells if cell[-4] not in gone]
        for name, cells in scores.items()
    }


_NOT_FITTING = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError),
    AssertionError,
)


@contextmanager
def refusing_what_does_not_fit(path: Path) -> Iterator[None]:
    """Name the checkpoint at ``path`` where taking its content apart fails.

    Raises:
        IncompatibleCheckpointError: It does.
    """
    try:
        with naming(path):
            yield
    except torch.OutOfMemoryError:
        raise
    except _NOT_FITTING as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise IncompatibleCheckpointError(
            f"{path}: its state is not one that a run with these settings saves ({reason}); take "
            "another checkpoint with --resume PATH, or start afresh with --overwrite"
        ) from error
