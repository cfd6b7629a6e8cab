"""The state of every run of a study, for a person to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import State, Status
from plora_cl.wording import counted


def overview(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """Return one line for each run, and the number of runs in each state."""
    width = max(len(run.name) for run in runs)
    state_width = max(map(len, State))
    lines = [
        f"{run.name:<{width}}  {status.state:<{state_width}}  {status.detail}".rstrip()
        for run, status in zip(runs, statuses, strict=True)
    ]
    return "\n".join([*lines, counts(statuses)])


def counts(statuses: Sequence[Status]) -> str:
    """Return the number of runs in each state, in one line."""
    by_state = Counter(status.state for status in statuses)
    parts = [f"{by_state[state]} {state}" for state in State if by_state[state]]
    return f"{counted(len(statuses), 'run')}: {', '.join(parts)}"
