"""What happened, one JSON object a line, each event exactly once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plora_cl.state import StateDict

log = logging.getLogger(__name__)


class RunLog:
    """An append-only JSONL file that continues where a checkpoint was taken.

    A record that comes after the position of a restored state will happen again, so the next
    `append` cuts it off first. Until then the file is left as it is: merely looking at a
    checkpoint costs nothing. Without a restored state the log starts empty.

    Args:
        path: The file; made at the first record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes, self._records = 0, 0
        self._digest = hashlib.sha256()
        self._expected: StateDict | None = None
        self._in_place = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Raises:
            ValueError: It holds a number that is not finite.
        """
        line = json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"
        self._cut_back()
        self._write(line)

    def sync(self) -> None:
        """Make every record durable; called before a checkpoint commits to this position."""
        if self._in_place and self._path.exists():
            _fsync(self._path)
            _fsync(self._path.parent)

    def clear(self) -> None:
        """Start over: a run begins that owes nothing to an earlier one."""
        self._path.unlink(missing_ok=True)
        self._bytes, self._records, self._digest = 0, 0, hashlib.sha256()
        self._expected, self._in_place = None, True

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
        """Go on from ``state``.

        A log that was lost or edited in the meantime is reported, and the next record is preceded
        by one that says so (``"event": "gap"``).
        """
        self._expected, self._in_place = dict(state), False

    def _cut_back(self) -> None:
        if self._in_place:
            return
        expected = self._expected or RunLog(self._path).state_dict()
        self._measure(expected["bytes"])
        if self._path.exists() and self._path.stat().st_size != self._bytes:
            with self._path.open("r+b") as file:
                file.truncate(self._bytes)
                os.fsync(file.fileno())
        self._expected, self._in_place = None, True
        if self._digest.hexdigest() != expected["sha256"]:
            self._report_gap(expected)

    def _measure(self, limit: int) -> None:
        """Find the end of the last complete line within the first ``limit`` bytes."""
        self._bytes, self._records, self._digest = 0, 0, hashlib.sha256()
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                if self._bytes + len(line) > limit or not line.endswith(b"\n"):
                    return
                self._count(line)

    def _report_gap(self, expected: StateDict) -> None:
        gap = {
            "event": "gap",
            "expected_bytes": expected["bytes"],
            "expected_records": expected["records"],
            "found_bytes": self._bytes,
            "found_records": self._records,
        }
        log.warning(
            "%s: the checkpoint knows of %d records (%d bytes), %d (%d bytes) are there or they "
            "differ: earlier records are lost, training is not affected",
            self._path,
            expected["records"],
            expected["bytes"],
            self._records,
            self._bytes,
        )
        self._write(json.dumps(gap, sort_keys=True).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(line)
        self._count(line)

    def _count(self, line: bytes) -> None:
        self._bytes += len(line)
        self._records += 1
        self._digest.update(line)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
