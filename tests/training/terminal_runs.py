"""Runs `plora-cl train` on streams that fail under it: reads one JSON request a line.

Each command runs in a forked child. Answers each line with the exit status and with what was read
of the output, as JSON.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from plora_cl.cli.main import main


def two_steps(log: Path) -> None:
    while not log.exists() or log.read_bytes().count(b'"event": "step"') < 2:
        time.sleep(0.001)


def learn_slowly(argv: list[str]) -> None:
    """Be the run, and leave the processor to whoever waits for its second step."""
    os.nice(19)
    os._exit(main(argv))


def hang_up(argv: list[str], log: Path, *, nohup: bool = False) -> tuple[int, bytes]:
    """Close the terminal of a run; the kernel then sends its session SIGHUP."""
    child, terminal = pty.fork()
    if child == 0:
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        learn_slowly(argv)
    two_steps(log)
    shown = os.read(terminal, 65536)
    os.close(terminal)
    return child, shown


def hang_up_twice(argv: list[str], log: Path) -> tuple[int, bytes]:
    """Do as a shell does: it sends SIGHUP to its jobs, and the kernel to what it leaves behind."""
    child, terminal = pty.fork()
    if child == 0:
        learn_slowly(argv)
    two_steps(log)
    shown = os.read(terminal, 65536)
    os.kill(child, signal.SIGHUP)
    while b"SIGHUP" not in shown:  # it has been taken
        shown += os.read(terminal, 65536)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGHUP)
    os.close(terminal)
    return child, shown


def close_pipe(argv: list[str], log: Path) -> tuple[int, bytes]:
    """Read as little as ``head -1`` does."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        os.dup2(writes, 1)
        os.dup2(writes, 2)
        os._exit(main(argv))
    os.close(writes)
    shown = os.read(reads, 4096)
    os.close(reads)
    return child, shown


def fill_disk(argv: list[str], log: Path) -> tuple[int, bytes]:
    """Write output to a disk that is full."""
    child = os.fork()
    if child == 0:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1)
        os.dup2(full, 2)
        os._exit(main(argv))
    return child, b""


def close_streams(argv: list[str], log: Path) -> tuple[int, bytes]:
    """Start without stdin, stdout and stderr, as ``<&- >&- 2>&-`` does."""
    child = os.fork()
    if child == 0:
        os.closerange(0, 3)
        os._exit(main(argv))
    return child, b""


SCENARIOS: dict[str, Callable[[list[str], Path], tuple[int, bytes]]] = {
    "terminal closed": hang_up,
    "terminal closed, nohup": lambda argv, log: hang_up(argv, log, nohup=True),
    "shell closed": hang_up_twice,
    "pipe closed": close_pipe,
    "disk full": fill_disk,
    "no streams": close_streams,
}

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    os.environ["TERM"] = "xterm"
    for line in sys.stdin:
        request = json.loads(line)
        child, shown = SCENARIOS[request["scenario"]](request["argv"], Path(request["log"]))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, shown.decode(errors="replace")]), flush=True)
