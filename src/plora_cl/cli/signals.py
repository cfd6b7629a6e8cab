"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)


class Stoppable(Protocol):
    """What can be asked to stop."""

    def request(self, reason: str, exit_code: int, /) -> None:
        """Ask to stop."""
        ...


_under_way: Stoppable | None = None


@contextmanager
def stopping(run: Stoppable) -> Iterator[None]:
    """Pass SIGTERM, SIGINT and SIGUSR1 on to ``run``; a second one ends the process at once."""

    def handle(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, _end_at_once)
        _request(run, number)

    global _under_way
    earlier = {each: signal.signal(each, handle) for each in SIGNALS}
    _under_way = run
    try:
        yield
    finally:
        _under_way = None
        for each, handler in earlier.items():
            signal.signal(each, handler)


def ask_to_stop() -> None:
    """Do what SIGTERM does the first time, also if that came already; from any thread."""
    run = _under_way
    if run is None:
        os.kill(os.getpid(), signal.SIGTERM)  # nothing to save
    else:
        _request(run, signal.SIGTERM)


def _request(run: Stoppable, number: int) -> None:
    name = signal.Signals(number).name
    run.request(name, 128 + number)
    print(f"{name}: stopping at the next safe instant; once more stops at once", file=sys.stderr)


def _end_at_once(number: int, _: FrameType | None) -> None:
    # Checkpoints are safe at any instant, so that the default action loses none.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
