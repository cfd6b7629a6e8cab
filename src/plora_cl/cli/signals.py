"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
)


class Stoppable(Protocol):
    """A run, or a supervisor of runs, that can be asked to stop."""

    def request(self, reason: str, exit_code: int, /) -> str | None:
        """Ask to stop; return when that will be, None at the next safe instant."""
        ...


_under_way: Stoppable | None = None


@contextmanager
def stopping(run: Stoppable) -> Iterator[None]:
    """Pass the first of `SIGNALS` to ``run``; a second one ends the process at once.

    A SIGHUP never counts as the second one: a closing terminal sends it twice, through the shell
    and by itself, and an ending session sends it after SIGTERM. Where it is ignored, as under
    ``nohup``, it stays ignored.
    """
    numbers = [each for each in SIGNALS if not _is_to_outlive_its_terminal(each)]

    def handle(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, _ignore if each.name == "SIGHUP" else _end_at_once)
        _request(run, number)

    global _under_way
    earlier = {each: signal.signal(each, handle) for each in numbers}
    _under_way = run
    try:
        yield
    finally:
        _under_way = None
        for each, handler in earlier.items():
            signal.signal(each, handler)


def _is_to_outlive_its_terminal(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def ask_to_stop() -> None:
    """Ask the run to stop as a first SIGTERM does, even if one came already; from any thread."""
    run = _under_way
    if run is None:
        os.kill(os.getpid(), signal.SIGTERM)  # nothing to save
    else:
        _request(run, signal.SIGTERM)


def _request(run: Stoppable, number: int) -> None:
    name = signal.Signals(number).name
    when = run.request(name, 128 + number) or "at the next safe instant"
    # The signal may have interrupted a print, or the terminal may be lost.
    with suppress(OSError, RuntimeError):
        print(f"{name}: stopping {when}; once more stops at once", file=sys.stderr)


def _ignore(number: int, _: FrameType | None) -> None:
    """Do nothing: the run is already stopping."""


def _end_at_once(number: int, _: FrameType | None) -> None:
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\n")  # the next prompt must not follow a progress bar
    # Checkpoints are safe at any instant: the default action loses none.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
