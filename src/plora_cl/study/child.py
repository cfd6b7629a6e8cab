"""A run of a study as a child process, with its log and its failure in its folder."""

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
from plora_cl.folders.found import FAILURE
from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import CONFIG, LOG, last_line

_MODULE = "plora_cl.cli.train.supervised"


class Child:
    """A run in a process of its own, which ends when this process ends.

    The child reads its standard input: a byte asks it to stop, and the end of input tells it that
    this process has ended, even by SIGKILL. It has a process group of its own, so that Ctrl-C in a
    terminal reaches it once, through `stop`.
    """

    def __init__(self, run: PlannedRun, process: subprocess.Popen[bytes]) -> None:
        self.run, self._process = run, process

    @classmethod
    def start(cls, run: PlannedRun, *, threads: int) -> Self:
        """Start or resume ``run`` on ``threads`` threads.

        An error is also recorded as the failure of the run, if the disk takes it.

        Raises:
            OutputError: The disk refused a file in its folder.
            StudyError: The system refused another process.
        """
        try:
            return cls(run, _started(run, threads))
        except PloraError as error:
            with suppress(OutputError):  # the error itself is reported
                _keep_failure(run, None, str(error))
            raise

    def stop(self) -> None:
        """Ask it to save and end. Only the first call counts."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended
            os.write(self._process.stdin.fileno(), b"s")

    def exit_code(self) -> int | None:
        """Return its exit code as a shell reports it; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        assert self._process.stdin is not None
        self._process.stdin.close()
        return code if code >= 0 else 128 - code

    def record_failure(self, code: int) -> str:
        """Record the failure in the folder; return it as one line."""
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
                "command again when the system has room for one more"
            ) from error


def _keep_failure(run: PlannedRun, code: int | None, line: str) -> None:
    """Write ``failure.json``; ``code`` is None if no process was started."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    failure = json.dumps({"exit_code": code, "line": line, "at": at})
    write_output(run.folder / FAILURE, failure.encode())
