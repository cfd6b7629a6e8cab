"""The random generators of a run, which belong to the process only while the run works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from plora_cl.errors import TrainingError
from plora_cl.state import RandomState, StateDict

_process = RandomState()
_drawing = threading.RLock()  # held by the thread whose run draws from the generators


class Generators:
    """The state of every random generator as one run left it, as a `Stateful`.

    PyTorch draws dropout from generators of the process. A run puts its own state there
    `in_effect` while it works, and finds there afterwards what it has put there: whatever other
    runs do in the same thread in the meantime, it draws the same numbers. What another thread
    does at the same time could not be kept apart, so that it is refused.

    Outside of every run the generators of the process belong to whoever draws from them: a
    training loop of one's own has them follow a run with `hand_over` and brings them back with
    `take_over`.
    """

    _at_work: Generators | None = None  # of the class: the ones that the process has

    def __init__(self, state: StateDict) -> None:
        self._state = state

    @classmethod
    def seeded(cls, seed: int) -> Self:
        """Return generators that begin at ``seed``; those of the process stay as they are.

        Raises:
            TrainingError: A run is at work in another thread.
        """
        with _preserved():
            return cls(RandomState.seeded(seed).state_dict())

    @contextmanager
    def in_effect(self) -> Iterator[None]:
        """Have the process draw from these generators, within the ``with`` block.

        Raises:
            TrainingError: A run is at work in another thread.
        """
        with _alone():
            yield from self._put_in_effect()

    def _put_in_effect(self) -> Iterator[None]:
        outer = Generators._at_work
        if outer is self:
            yield
            return
        before = _process.state_dict()
        if outer is not None:
            outer._state = before
        _process.load_state_dict(self._state)
        Generators._at_work = self
        try:
            yield
        finally:
            self._state = _process.state_dict()
            Generators._at_work = outer
            _process.load_state_dict(before if outer is None else outer._state)

    def hand_over(self) -> None:
        """Leave this state in the process, unless a run is at work there."""
        with _alone():
            if Generators._at_work is None:
                _process.load_state_dict(self._state)

    def take_over(self) -> None:
        """Go on from the state that the process has, unless a run is at work there."""
        if Generators._at_work is None:
            self._state = _process.state_dict()

    def state_dict(self) -> StateDict:
        """Return the state of every generator, drawing nothing from any."""
        return _process.state_dict() if Generators._at_work is self else dict(self._state)

    def load_state_dict(self, state: StateDict, /) -> None:
        """Rewind every generator to ``state``.

        Raises:
            TrainingError: A run is at work in another thread.
        """
        if Generators._at_work is self:
            _process.load_state_dict(state)
            return
        with _preserved():
            _process.load_state_dict(state)
            self._state = _process.state_dict()


@contextmanager
def _preserved() -> Iterator[None]:
    with _alone():
        before = _process.state_dict()
        try:
            yield
        finally:
            _process.load_state_dict(before)


@contextmanager
def _alone() -> Iterator[None]:
    if not _drawing.acquire(blocking=False):
        raise TrainingError(
            "a run is at work in another thread of this process, and PyTorch's random generators "
            "belong to the process: the two would change each other's numbers; use one after the "
            "other, or a process for each (plora-cl study)"
        )
    try:
        yield
    finally:
        _drawing.release()
