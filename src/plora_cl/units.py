"""Long work in small units: between two of them a run can be saved, and stopped."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias, TypeVar

_T = TypeVar("_T")


class Unit(NamedTuple):
    """A unit of long work that is finished.

    Attributes:
        what: Name of the work.
        done: Units finished so far.
        total: Units of the work.
    """

    what: str
    done: int
    total: int


Progress: TypeAlias = Callable[[Unit], None]
"""Receives each unit of work that cannot be interrupted between two of them."""

Units: TypeAlias = Generator[Unit, None, _T]
"""Work that yields after each unit and returns its result. At each yield the state of its owner
holds everything done so far: begun anew from that state, it yields the units that are left."""


def run_through(units: Units[_T]) -> _T:
    """Do all units, and return the result."""
    while True:
        try:
            next(units)
        except StopIteration as end:
            result: _T = end.value
            return result
