"""A request that a run stops, at an instant at which nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from plora_cl.errors import RunStoppedError

TIME_IS_UP = 75  # EX_TEMPFAIL of sysexits.h: try again


class StopRequest:
    """Set by a signal handler or a clock, polled by the run.

    Args:
        clock: Seconds from any fixed origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._why: tuple[str, int] | None = None
        self._limit: tuple[float, str] | None = None
        self._has_begun = False

    def request(self, reason: str, exit_code: int) -> str | None:
        """Request a stop; the first reason counts.

        Returns:
            When the run stops; None at the next safe instant.
        """
        self._why = self._why or (reason, exit_code)
        return None if self._has_begun else "as soon as the run has loaded"

    def begin(self) -> None:
        """Stop here if that was requested while the run was loaded; from now on it changes files.

        A time limit does not count: a run that is started again and again still ends.

        Raises:
            RunStoppedError: That was requested.
        """
        if self._why is not None:
            raise RunStoppedError(*self._why)
        self._has_begun = True

    def limit(self, seconds: float, reason: str) -> None:
        """Request a stop ``seconds`` from now, with exit code 75."""
        self._limit = (self._clock() + seconds, reason)

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        if self._limit is not None and self._clock() >= self._limit[0]:
            self.request(self._limit[1], TIME_IS_UP)
        return self._why is not None

    def check(self) -> None:
        """Stop here if that was requested.

        Raises:
            RunStoppedError: That was requested.
        """
        if self.requested and self._why is not None:
            raise RunStoppedError(*self._why)
