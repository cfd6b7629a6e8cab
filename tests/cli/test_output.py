"""Standard streams that fail, under the tools and on a real terminal."""

from __future__ import annotations

import os
import pty
import sys
from contextlib import suppress

import pytest

from cli.closed_pipe import unread
from plora_cl.cli.exit import exit_code
from plora_cl.cli.output import continuing_without_output
from plora_cl.errors import DataError


def test_help_that_nobody_reads_ends_quietly() -> None:
    for argv in (["--help"], ["train", "--help"], ["checkpoints"]):
        code, err = unread(*argv)
        assert (code in (0, 2, 141), err) == (True, "")


def test_a_stream_is_itself_again_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with continuing_without_output():
        print("shown")
    assert sys.stdout is before
    assert capsys.readouterr().out == "shown\n"


PROGRAM = """
import time
from plora_cl.cli.output import continuing_without_output
from plora_cl.cli.progress import reporter_for
from plora_cl.cli.signals import stopping
from plora_cl.units import Unit
class Run:
    def request(self, reason, exit_code):
        pass
with continuing_without_output(), stopping(Run()), reporter_for() as reporter:
    reporter.task_started(0, 1, "news", 10)
    while True:
        reporter.activity(Unit("evaluation", 1, 2))
        time.sleep(0.02)
"""


def test_ctrl_c_pressed_twice_leaves_the_terminal_as_it_was() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM])
    shown = b""
    for key, sign in ((b"\x03", b"evaluation"), (b"\x03", b"once more stops at once")):
        while sign not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, key)
    with suppress(OSError):  # how a terminal ends
        while more := os.read(terminal, 4096):
            shown += more
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -2
    assert shown.rfind(b"\x1b[?25l") <= shown.rfind(b"\x1b[?25h")
    assert shown.endswith(b"\n")


def test_an_error_stays_one_line_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise DataError(f"begin {'x' * 1_000_000} way out")

    assert exit_code(refuse) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: begin xxx")
    assert said.endswith("xxx way out\n")
    assert len(said) < 5000
