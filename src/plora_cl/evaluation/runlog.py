"""What happened, one JSON object a line, each event exactly once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plora_cl.state import StateDict

log = logging.getLogger(__name__)


class RunLog:
    """An append-only JSONL file that continues where a checkpoint was taken.

    A record that comes after the position of a restored state will happen again: `append` leaves it
    where it is equal, so that a checkpoint further on still finds its log, and cuts the rest off
    where it is not. Until then the file is left as it is: merely looking at a checkpoint costs
    nothing. Without a restored state the log starts empty.

    Args:
        path: The file; made at the first record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes, self._records = 0, 0
        self._digest = hashlib.sha256()
        self._expected: StateDict | None = None
        self._in_place = self._has_rest = False

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

    def set_aside(self, suffix: str) -> None:
        """Keep a durable copy of the file for the checkpoints that rely on what will be cut off.

        `append` takes it back when one of them was restored.

        Args:
            suffix: Of the name of the copy, before a digest that tells it from others.
        """
        if not self._path.exists():
            return
        digest = hashlib.sha256(self._path.read_bytes()).hexdigest()
        copy = self._path.with_name(f"{self._path.name}.{suffix}-{digest[:8]}")
        if not copy.exists():
            _copy(self._path, copy)

    def clear(self) -> None:
        """Start over: a run begins that owes nothing to an earlier one."""
        for path in (self._path, *self._copies()):
            path.unlink(missing_ok=True)
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
        self._measure(self._path, expected["bytes"])
        for copy in self._copies():
            if self._digest.hexdigest() == expected["sha256"]:
                break
            self._measure(copy, expected["bytes"])
            if self._digest.hexdigest() == expected["sha256"]:
                _copy(copy, self._path)
        else:
            self._measure(self._path, expected["bytes"])
        self._has_rest = self._path.exists() and self._path.stat().st_size != self._bytes
        self._expected, self._in_place = None, True
        if self._digest.hexdigest() != expected["sha256"]:
            self._report_gap(expected)

    def _copies(self) -> list[Path]:
        return sorted(
            path
            for path in self._path.parent.glob(f"{self._path.name}.*")
            if re.fullmatch(r".*-[0-9a-f]{8}", path.name)
        )

    def _measure(self, path: Path, limit: int) -> None:
        """Find the end of the last complete line of ``path`` within its first ``limit`` bytes."""
        self._bytes, self._records, self._digest = 0, 0, hashlib.sha256()
        if not path.exists():
            return
        with path.open("rb") as file:
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
        if not (self._has_rest and self._goes_on_with(line)):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(line)
        self._count(line)

    def _goes_on_with(self, line: bytes) -> bool:
        """Tell whether ``line`` is what the file has next; cut off what it has where it is not."""
        with self._path.open("r+b") as file:
            file.seek(self._bytes)
            if file.read(len(line)) == line:
                return True
            file.truncate(self._bytes)
            os.fsync(file.fileno())
        self._has_rest = False
        return False

    def _count(self, line: bytes) -> None:
        self._bytes += len(line)
        self._records += 1
        self._digest.update(line)


def _copy(source: Path, target: Path) -> None:
    """Put the content of ``source`` at ``target``: all of it or nothing, and durably."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    _fsync(partial)
    partial.replace(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
