"""Progress of a file on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plora_cl.cli.pace import clock_time
from plora_cl.inference.files.job import FileProgress, OnProgress

_INTERVAL = 10.0  # seconds between two lines


@contextmanager
def showing_progress() -> Iterator[OnProgress]:
    """Yield what shows progress on stderr."""
    began = time.monotonic()

    def line(progress: FileProgress) -> str:
        return progress_line(progress, time.monotonic() - began)

    if not sys.stderr.isatty():
        yield _lines(line)
        return
    from plora_cl.cli.progress_bar import Terminal

    with Terminal(stderr=True).status("") as status:
        yield lambda progress: status.update(line(progress))


def _lines(line: Callable[[FileProgress], str]) -> OnProgress:
    last = time.monotonic()

    def show(progress: FileProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _INTERVAL:
            last = time.monotonic()
            print(line(progress), file=sys.stderr, flush=True)

    return show


def progress_line(progress: FileProgress, seconds: float) -> str:
    """Return progress in words.

    Args:
        progress: How far it is.
        seconds: Since this run began.
    """
    new = progress.rows - progress.resumed
    pace = f"{new / seconds:.1f} rows/s" if seconds > 0 else ""
    parts = [f"{progress.rows} rows", pace]
    if progress.part:
        parts.insert(1, f"{progress.part:.0%} of the file read")
        total = progress.rows / progress.part
        if new and progress.part < 1:
            parts.append(f"{clock_time((total - progress.rows) * seconds / new)} left")
    return ", ".join(part for part in parts if part)
