"""The holder of the lock of an experiment, and whether that process can still be alive."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from plora_cl.bounded_reading import parse_json

STALE_SECONDS = 600.0
"""A holder on another machine is taken for dead after so long without a sign of life."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that writes to an experiment.

    Attributes:
        host: Name of its machine.
        pid: Its process id there.
        boot_id: Changes when the machine reboots; empty where it has none.
        process_started: Clock ticks from boot to its start, 0 where unknown: tells it from another
            process that got its id later.
        since: When it took the lock, ISO 8601.
    """

    host: str
    pid: int
    boot_id: str
    process_started: int
    since: str

    @classmethod
    def this_process(cls) -> Self:
        """Return the record of this process."""
        pid = os.getpid()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), pid, _boot_id(), _process_started(pid) or 0, now)

    @classmethod
    def from_json(cls, data: bytes) -> Self | None:
        """Read a record; None where it is empty or torn."""
        try:
            holder = cls(**parse_json(data))
        except (ValueError, TypeError):
            return None
        values = asdict(holder).values()
        is_right = tuple(map(type, values)) == (str, int, str, int, str)
        return holder if is_right and all(str(value).isprintable() for value in values) else None

    def gone_because(self, silent_seconds: float) -> str | None:
        """Return why the process cannot be alive; None where it may be.

        Args:
            silent_seconds: Since its last sign of life.
        """
        if self.host != socket.gethostname():
            if silent_seconds <= STALE_SECONDS:
                return None
            return f"it gave no sign of life for {silent_seconds:.0f} seconds"
        if self.boot_id != _boot_id():
            return "the machine was rebooted since"
        started = _process_started(self.pid)
        if started is None:
            return "that process is gone"
        if started != self.process_started:
            return "that process is gone and its id belongs to another one"
        return None


UNKNOWN = Holder("an unknown host", 0, "", 0, "an unknown time")
"""A process that holds the lock and has not written its record."""


def refusal(folder: Path, holder: Holder) -> str:
    """Return why no process but ``holder`` may write to ``folder``, and the ways out."""
    other = "use another folder (plora-cl: --experiment-name)"
    if holder == UNKNOWN:
        return f"{folder} is in use by another process; wait until it has ended, or {other}"
    if holder.host != socket.gethostname():
        wait = (
            "wait until it has ended (if that machine is down, it is taken over "
            f"{STALE_SECONDS / 60:.0f} minutes after its last sign of life)"
        )
    elif holder.pid == os.getpid():
        wait = "this very process: let its other trainer finish, or close its CheckpointManager"
    else:
        wait = "wait until it has ended, stop it"
    return (
        f"{folder} is in use by process {holder.pid} on {holder.host} since {holder.since}; "
        f"{wait}, or {other}"
    )


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _process_started(pid: int) -> int | None:
    """Return when a process started, 0 where unknown; None where there is no such process."""
    try:
        # The second field is a name in parentheses that may hold anything; the start is field 22.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
