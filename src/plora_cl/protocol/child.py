"""A run as a child process, and what its folder gets to know about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from plora_cl.checkpoint.output_files import recording, write_output
from plora_cl.config.sources import dump
from plora_cl.errors import OutputError
from plora_cl.protocol.plan import PlannedRun
from plora_cl.protocol.run_folder import CONFIG, FAILURE, LOG, last_line

_MODULE = "plora_cl.cli.supervised"


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
            OutputError: The disk refused a file in its folder.
        """
        config = run.folder / CONFIG
        write_output(config, dump(run.settings).encode())
        with recording(run.folder / LOG), (run.folder / LOG).open("ab") as log:
            (run.folder / FAILURE).unlink(missing_ok=True)
            log.write(f"--- {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, "floor" if run.is_floor else "train", str(config)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            )
        return cls(run, process)

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
        at = datetime.now(UTC).isoformat(timespec="seconds")
        failure = json.dumps({"exit_code": code, "line": line, "at": at})
        try:
            write_output(self.run.folder / FAILURE, failure.encode())
        except OutputError as error:
            return f"exit code {code}: {line} (not recorded: {error})"
        return f"exit code {code}: {line}"
