"""Where a run stands now, by the end of its run log."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from plora_cl.bounded_reading import open_regular
from plora_cl.checkpoint.store.run_log import RUN_LOG

_TAIL_BYTES = 65_536


class Step(BaseModel):
    """The parts of a step event of the run log that are shown; task and epoch are zero-based."""

    event: Literal["step"]
    step: int
    task: int
    epoch: int
    loss: float


def last_step(folder: Path) -> Step | None:
    """Return the last step in the run log of an experiment; None if it has none."""
    for line in reversed(tail(folder / RUN_LOG)):
        with suppress(ValidationError):  # of another event, or torn
            return Step.model_validate_json(line)
    return None


def tail(path: Path) -> list[str]:
    """Return the last lines of a file, the first of them perhaps torn."""
    try:
        with open_regular(path) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []  # shown only: no state depends on it
