"""Real processes without the seconds of their imports: forked from an interpreter that has them.

A forked process has arguments, variables, a folder, streams and a session of its own, and signals
do to it what they do to any other. Start one cold where the start itself is what is tested.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

SERVER = Path(__file__).with_name("warm_server.py")
MODULES = (
    "accelerate",
    "datasets",
    "peft",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "plora_cl.training.trainer",
    "plora_cl.cli.main",
    "plora_cl.cli.study.command",
    "plora_cl.cli.train.supervised",
)
PLORA_CL = "import sys; from plora_cl.cli.main import main; sys.exit(main())"
"""What ``python -m plora_cl.cli.main`` executes."""


class Process:
    """A forked process, used like a `subprocess.Popen`."""

    def __init__(self, pid: int, status: int, stdin: IO[bytes] | None = None) -> None:
        self.pid, self.stdin = pid, stdin
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, ``-n`` after signal n; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, at most ``timeout`` seconds; return the exit status as `poll` does."""
        return self._ended(timeout)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode


class Interpreter:
    """An interpreter that has imported what a run needs.

    Args:
        python: Its executable; one other than this has modules and packages of its own.
    """

    def __init__(self, python: Path | str = sys.executable) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        with theirs:
            self._server: Process | subprocess.Popen[bytes] = subprocess.Popen(
                [python, SERVER, str(theirs.fileno()), json.dumps(MODULES)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **({"PYTHONPATH": path} if python == sys.executable else {})},
            )

    def with_modules(self, *modules: str, path: Sequence[Path]) -> Interpreter:
        """Return an interpreter that has imported ``modules``, too, found in ``path``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other = Interpreter.__new__(Interpreter)
        other._channel = ours
        with theirs:
            other._server = self._forked({"modules": modules}, stdin=theirs.fileno(), path=path)
        return other

    def start(
        self,
        program: str,
        *argv: str,
        stdin: int | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] = os.environ,
        path: Sequence[Path] = (),
        new_session: bool = False,
    ) -> Process:
        """Start a process.

        Args:
            program: The code of its ``__main__``.
            argv: Its arguments.
            stdin: A descriptor, or `subprocess.PIPE`; None for the null device.
            stdout: Where it writes; None for the null device.
            stderr: Where it writes errors; None for the same place.
            cwd: Its working directory.
            env: Its variables.
            path: Folders in which it finds modules and packages first.
            new_session: Whether it leads a session of its own.
        """
        reads, writes = os.pipe() if stdin == subprocess.PIPE else (None, None)
        process = self._forked(
            {"program": program, "argv": ["program", *argv]},
            stdin=stdin if reads is None else reads,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            path=path,
            new_session=new_session,
        )
        if reads is not None and writes is not None:
            os.close(reads)
            process.stdin = os.fdopen(writes, "wb")
        return process

    def run(
        self, program: str, *argv: str, given: str = "", **where: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end on the input ``given``; return what it wrote; see `start`."""
        with tempfile.TemporaryFile("w+") as stdin, ThreadPoolExecutor() as readers:
            stdin.write(given)
            stdin.seek(0)
            pipes = [os.pipe() for _ in range(2)]
            writes = [os.fdopen(w, "w") for _, w in pipes]
            streams: dict[str, Any] = {
                "stdin": stdin.fileno(),
                "stdout": writes[0],
                "stderr": writes[1],
            }
            process = self.start(program, *argv, **streams, **where)
            for pipe in writes:
                pipe.close()
            texts = list(readers.map(_text, [r for r, _ in pipes]))
            code = process.wait()
            assert code is not None
        return subprocess.CompletedProcess(argv, code, *texts)

    def close(self) -> None:
        """End it, and kill what it started."""
        self._channel.close()
        self._server.wait()

    def _forked(
        self,
        request: dict[str, Any],
        *,
        stdin: int | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] = os.environ,
        path: Sequence[Path] = (),
        new_session: bool = False,
    ) -> Process:
        request |= {
            "cwd": str(cwd or Path.cwd()),
            "env": dict(env),
            "path": list(map(str, path)),
            "new_session": new_session,
        }
        ended, status = os.pipe()
        with Path(os.devnull).open("r+b", buffering=0) as null:
            out = null if stdout is None else stdout
            streams = [null.fileno() if stdin is None else stdin, out.fileno()]
            streams += [(out if stderr is None else stderr).fileno(), status]
            socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
        os.close(status)
        answer = self._channel.recv(16)
        assert answer, "the interpreter has ended"
        return Process(int(answer), ended)


def _text(pipe: int) -> str:
    with os.fdopen(pipe) as file:
        return file.read()
