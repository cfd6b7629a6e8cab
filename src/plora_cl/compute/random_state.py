"""The random generators of a run, in effect in the process only while the run works."""

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

    PyTorch draws dropout from generators of the process. `in_effect` puts the state of a run there
    while it works and takes it back afterwards, so that other runs of the same thread do not change
    the numbers that it draws. A run in a second thread would, and is refused.

    Outside of every run the generators belong to the process: a training loop of the user's own
    receives the state of a run with `hand_over` and returns it with `take_over`.
    """

    _at_work: Generators | None = None  # of the class: those in effect in the process

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
        with _locked():
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
        """Put this state into the process, unless a run is at work there."""
        with _locked():
            if Generators._at_work is None:
                _process.load_state_dict(self._state)

    def take_over(self) -> None:
        """Continue from the state of the process, unless a run is at work there."""
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
    with _locked():
        before = _process.state_dict()
        try:
            yield
        finally:
            _process.load_state_dict(before)


@contextmanager
def _locked() -> Iterator[None]:
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
