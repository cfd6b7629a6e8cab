"""What a run does that is asked to stop by its supervisor, by a signal, or by both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

RUN = """
import threading, time
from plora_cl.cli.signals import stopping
from plora_cl.cli.train.supervised import _end_with_supervisor

class Run:
    def request(self, reason, exit_code):
        print("asked", flush=True)

with stopping(Run()):
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    print("ready", flush=True)
    time.sleep(60)
"""

Process = subprocess.Popen[bytes]


@pytest.fixture
def run() -> Iterator[Process]:
    with subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert heard(process) == "ready"
        yield process
        process.kill()


def heard(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def ask(process: Process) -> None:
    assert process.stdin is not None
    os.write(process.stdin.fileno(), b"s")


def goes_on(process: Process) -> bool:
    time.sleep(0.5)
    return process.poll() is None


def test_asked_by_its_supervisor_it_stops_as_by_a_signal(run: Process) -> None:
    ask(run)
    assert heard(run) == "asked"
    assert goes_on(run)


def test_a_signal_to_the_whole_job_leaves_it_the_time_to_save(run: Process) -> None:
    run.send_signal(signal.SIGTERM)  # reaches the supervisor, too, which then asks
    assert heard(run) == "asked"
    ask(run)
    assert goes_on(run)


def test_a_signal_to_the_whole_job_may_come_after_its_supervisor_asked(run: Process) -> None:
    ask(run)
    assert heard(run) == "asked"
    run.send_signal(signal.SIGTERM)
    assert heard(run) == "asked"
    assert goes_on(run)


def test_a_second_signal_ends_it_at_once(run: Process) -> None:
    run.send_signal(signal.SIGTERM)
    assert heard(run) == "asked"
    run.send_signal(signal.SIGTERM)
    assert run.wait(10) == -signal.SIGTERM


def test_it_stops_if_its_supervisor_is_gone(run: Process) -> None:
    assert run.stdin is not None
    run.stdin.close()
    assert heard(run) == "asked"
    assert goes_on(run)


def test_asked_already_it_ends_at_once_if_its_supervisor_is_gone(run: Process) -> None:
    ask(run)
    assert heard(run) == "asked"
    assert run.stdin is not None
    run.stdin.close()
    assert run.wait(10) == 128 + signal.SIGTERM
