"""What a difference between a checkpoint and the run that goes on from it does to the result."""

from __future__ import annotations

from enum import StrEnum


class Impact(StrEnum):
    """Class of a difference; where nothing differs, going on is bitwise exact.

    Whatever is compared declares its class where it is declared itself: a setting in the metadata
    of its field, a fact about the machine in `plora_cl.compute.environment.FACTS`. Whatever
    declares none is TRAJECTORY.
    """

    HARMLESS = "harmless"
    """Cannot change the trajectory: the promise of a bitwise continuation holds."""
    TRAJECTORY = "trajectory-changing"
    """Changes what is computed from here on: refused unless it is accepted."""
    STRUCTURAL = "structural"
    """The state of the checkpoint has no place in this run: always refused."""
