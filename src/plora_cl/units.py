"""Long work in small units: between two of them a run can be saved, and stopped."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

_T = TypeVar("_T")


class Unit(NamedTuple):
    """A piece of long work that is finished.

    Attributes:
        what: Of what.
        done: Units finished so far.
        total: Units there are in all.
    """

    what: str
    done: int
    total: int


Units: TypeAlias = Generator[Unit, None, _T]
"""Work that yields after each unit, when all that was done is in the state of its owner, and
returns its result. Begun anew from that state, it yields the units that are left."""


def run_through(units: Units[_T]) -> _T:
    """Do all units, and return the result."""
    while True:
        try:
            next(units)
        except StopIteration as end:
            result: _T = end.value
            return result
