"""A run as a child process, and what its folder gets to know about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from plora_cl.checkpoint.store.output_files import recording, write_output
from plora_cl.config.precedence import dump
from plora_cl.errors import OutputError, PloraError, StudyError
from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import CONFIG, FAILURE, LOG, last_line

_MODULE = "plora_cl.cli.train.supervised"


class Child:
    """A run in a process of its own, which ends by itself if this process is gone.

    The child reads its standard input: a byte asks it to stop, and it ends when this process does,
    however it does. It has a process group of its own, so that Ctrl-C in a terminal reaches it
    once, through `stop`.
    """

    def __init__(self, run: PlannedRun, process: subprocess.Popen[bytes]) -> None:
        self.run, self._process = run, process

    @classmethod
    def start(cls, run: PlannedRun, *, threads: int) -> Self:
        """Start ``run``, or go on with it, on ``threads`` threads.

        Raises:
            OutputError: The disk refused a file in its folder, where this is kept if that can be.
            StudyError: The system refused another process; this is kept, too.
        """
        try:
            return cls(run, _started(run, threads))
        except PloraError as error:
            with suppress(OutputError):  # it is told of anyway
                _keep_failure(run, None, str(error))
            raise

    def stop(self) -> None:
        """Ask it to save and end, unless somebody has."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended by itself
            os.write(self._process.stdin.fileno(), b"s")

    def exit_code(self) -> int | None:
        """Return what it exited with, as a shell reports it; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        assert self._process.stdin is not None
        self._process.stdin.close()
        return code if code >= 0 else 128 - code

    def record_failure(self, code: int) -> str:
        """Keep in the folder how it failed, and return that as one line."""
        line = last_line(self.run.folder)
        try:
            _keep_failure(self.run, code, line)
        except OutputError as error:
            return f"exit code {code}: {line} (not recorded: {error})"
        return f"exit code {code}: {line}"


def _started(run: PlannedRun, threads: int) -> subprocess.Popen[bytes]:
    config, path = run.folder / CONFIG, run.folder / LOG
    write_output(config, dump(run.settings).encode())
    with recording(run.folder / FAILURE):
        (run.folder / FAILURE).unlink(missing_ok=True)
    with recording(path):
        log = path.open("ab", buffering=0)
    with log:
        with recording(path):
            log.write(f"--- {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
        try:
            return subprocess.Popen(
                [sys.executable, "-m", _MODULE, "floor" if run.is_floor else "train", str(config)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise StudyError(
                f"cannot start a process for {run.name}: {error.strerror or error}; start the "
                "command again once there is room for one more"
            ) from error


def _keep_failure(run: PlannedRun, code: int | None, line: str) -> None:
    """Write ``failure.json``; ``code`` is None where there was no process to exit with one."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    failure = json.dumps({"exit_code": code, "line": line, "at": at})
    write_output(run.folder / FAILURE, failure.encode())
