"""The events of a run, one JSON object a line, each exactly once."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plora_cl.bounded_reading import open_regular
from plora_cl.errors import CheckpointError, TrainingError
from plora_cl.evaluation.pending_lines import PendingLines, cut, sync
from plora_cl.run_log_files import copies_of, copy_of, holder_of
from plora_cl.state import StateDict

log = logging.getLogger(__name__)

_REFRESH_SECONDS = 1.0
_PIECE = 1 << 20
_START: StateDict = {"bytes": 0, "records": 0, "sha256": hashlib.sha256().hexdigest()}
"""Position in an empty log."""
_MOST_NOT_DURABLE = 10_000

Submit = Callable[[Callable[[], object]], None]


class RunLog:
    """An append-only JSONL file that continues where a checkpoint was taken.

    `append` writes into memory, so that a slow disk does not delay training; `sync` writes to the
    disk. In between, ``submit`` writes the lines once a second, for a person who watches the file.

    Records after the position of a restored state will happen again. They stay as long as the new
    ones are equal, so that later checkpoints still find their log; the rest is cut off at the first
    difference. Until the first record the file stays as it is: looking at a checkpoint changes
    nothing. Without a restored state the log starts empty.

    `sync` may be called on any thread, everything else on one.

    Args:
        path: The file; created with the first record.
        submit: Runs a job soon, perhaps on another thread; None leaves all writing to `sync`.
        clock: Seconds from any fixed origin.
    """

    def __init__(
        self,
        path: Path,
        *,
        submit: Submit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._submit, self._clock = submit, clock
        self._pending = PendingLines(path)
        self._submitted = float("-inf")
        self._refused = False
        self._bytes, self._records, self._digest = 0, 0, hashlib.sha256()
        self._expected: StateDict | None = _START  # what the next record follows; None: the end
        self._placing = threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Raises:
            TrainingError: It holds a number that is not finite.
            CheckpointError: The log that the first record continues cannot be read.
        """
        try:
            line = json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"
        except ValueError as error:
            raise TrainingError(
                f"what is to be logged as {record.get('event')!r} has a number that is not finite: "
                "the run has diverged, or its checkpoint was edited; lower learning_rate"
            ) from error
        with self._placing:
            if self._expected is not None:
                self._go_to_end(self._expected)
        self._add(line)
        if self._submit is not None and self._clock() - self._submitted >= _REFRESH_SECONDS:
            self._submitted = self._clock()
            self._submit(self._refresh)

    def sync(self) -> None:
        """Make every record durable; called before a checkpoint commits to this position.

        A log that only a copy holds is restored first, so that the checkpoint finds it.

        Raises:
            OSError: The disk refused; every record is kept for the next time.
        """
        with self._placing:
            if self._expected is not None:
                self._take_back(self._expected)
                return
        self._pending.write(durably=True)

    def set_aside(self, branch: int) -> None:
        """Keep a durable copy of the file for checkpoints that need what is going to be cut off.

        `append` and `sync` restore it after one of these checkpoints was restored.

        Args:
            branch: Number of the branch that begins; part of the name of the copy.
        """
        if not self.path.exists():
            return
        with open_regular(self.path) as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        if holder_of(self._copies(), size, digest) is None:
            _copy(self.path, copy_of(self.path, branch=branch, sha256=digest))

    def clear(self) -> None:
        """Start over: a run begins that continues no earlier one.

        Raises:
            OSError: The disk refused.
        """
        self._pending.follow(0)
        for path in (self.path, *self._copies()):
            path.unlink(missing_ok=True)
        self._bytes, self._records, self._digest = 0, 0, hashlib.sha256()
        self._expected = None

    def state_dict(self) -> StateDict:
        """Return length in bytes, number of records and SHA-256 of the log up to here."""
        if self._expected is not None:
            return dict(self._expected)
        return {
            "bytes": self._bytes,
            "records": self._records,
            "sha256": self._digest.hexdigest(),
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Continue from ``state``.

        A log that was lost or edited in the meantime is reported, and a record ``"event": "gap"``
        precedes the next one.

        Raises:
            ValueError: ``state`` is not what `state_dict` returns.
        """
        if [type(state.get(name)) for name in _START] != [int, int, str]:
            raise ValueError(f"{state} is no position in a run log")
        self._expected = dict(state)

    def settle(self) -> None:
        """Cut the file after the last record, or after the restored state: no record follows.

        What comes after was never committed, or belongs to another branch. A log that was lost or
        edited is reported and stays as it is.

        Raises:
            CheckpointError: The disk refused.
        """
        try:
            if self._expected is None:
                self._pending.cut()
                return
            self._find_end(self._expected)
            if self._digest.hexdigest() != self._expected["sha256"]:
                self._warn_of_gap(self._expected)
            else:
                cut(self.path, self._bytes)
        except OSError as error:
            raise CheckpointError(
                f"cannot read or mend {self.path}: {error.strerror or error}"
            ) from error

    def _go_to_end(self, expected: StateDict) -> None:
        try:
            self._find_end(expected)
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self.path}, which this run continues: {error.strerror or error}; "
                "make it readable, or remove it: training then continues without earlier records"
            ) from error
        self._pending.follow(self._bytes)
        self._expected = None
        if self._digest.hexdigest() != expected["sha256"]:
            self._report_gap(expected)

    def _find_end(self, expected: StateDict) -> None:
        """Find the last complete line of what ``expected`` describes, in the file that holds it."""
        self._take_back(expected)
        self._bytes, self._records, self._digest = 0, 0, hashlib.sha256()
        if not self.path.exists():
            return
        digest, read = hashlib.sha256(), 0
        with open_regular(self.path) as file:
            while piece := file.readline(_PIECE):  # a line may be of any length
                read += len(piece)
                if read > expected["bytes"]:
                    return
                digest.update(piece)
                if piece.endswith(b"\n"):
                    self._bytes, self._digest = read, digest.copy()
                    self._records += 1

    def _take_back(self, expected: StateDict) -> None:
        """Replace the file by a copy if only the copy holds ``expected``.

        The file may be the log of another branch, and is kept as a copy, too.
        """
        copies = self._copies()
        holder = holder_of((self.path, *copies), expected["bytes"], expected["sha256"])
        if holder in copies:
            self.set_aside(copies[holder])
            _copy(holder, self.path)

    def _copies(self) -> dict[Path, int]:
        return copies_of(self.path, (path.name for path in self.path.parent.glob("*")))

    def _report_gap(self, expected: StateDict) -> None:
        gap = {
            "event": "gap",
            "expected_bytes": expected["bytes"],
            "expected_records": expected["records"],
            "found_bytes": self._bytes,
            "found_records": self._records,
        }
        self._warn_of_gap(expected)
        self._add(json.dumps(gap, sort_keys=True).encode() + b"\n")

    def _warn_of_gap(self, expected: StateDict) -> None:
        log.warning(
            "%s: the checkpoint knows of %d records (%d bytes), %d (%d bytes) are there or they "
            "differ: earlier records are lost, training is not affected",
            self.path,
            expected["records"],
            expected["bytes"],
            self._records,
            self._bytes,
        )

    def _add(self, line: bytes) -> None:
        self._pending.add(line)
        self._bytes += len(line)
        self._records += 1
        self._digest.update(line)

    def _refresh(self) -> None:
        """Write the lines, durably only if they are many; they stay in memory if that fails."""
        try:
            self._pending.write(durably=len(self._pending) > _MOST_NOT_DURABLE)
        except OSError as error:
            if not self._refused:
                log.warning("%s; records wait in memory until there is room for them", error)
            self._refused = True
        else:
            self._refused = False


def _copy(source: Path, target: Path) -> None:
    """Copy ``source`` to ``target`` durably: all of it or nothing."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    sync(partial)
    partial.replace(target)
    sync(target.parent)
