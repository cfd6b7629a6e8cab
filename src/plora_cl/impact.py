"""How a difference between a checkpoint and the run that resumes it affects the result."""

from __future__ import annotations

from enum import StrEnum


class Impact(StrEnum):
    """Class of a difference; without any, a resumed run is bitwise exact.

    Each value declares its class along with itself: a setting in the metadata of its field, a fact
    about the machine in `plora_cl.compute.environment.IMPACTS`. A value that declares none is
    TRAJECTORY.
    """

    HARMLESS = "harmless"
    """Cannot change the trajectory: the promise of a bitwise continuation holds."""
    TRAJECTORY = "trajectory-changing"
    """Changes what is computed from here on: refused unless it is accepted."""
    STRUCTURAL = "structural"
    """The state of the checkpoint has no place in this run: always refused."""
