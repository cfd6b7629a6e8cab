"""One real process of a history: `plora-cl` in a forked child that is stopped as planned.

Imports cost seconds and a fork milliseconds. Everything in the child is real: the command line, the
disk, the lock, the signals, SIGKILL, the limit on the size of files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import plora_cl.cli.train.command
import plora_cl.training.own_loop
from faults.histories import reading
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.cli.main import main
from plora_cl.state_digest import state_digest
from plora_cl.training.reporting import Reporter
from plora_cl.training.stopping import StopRequest
from training.evidence import TIMED

CRASHED = 97
"""Exit status of a child with an exception that is not one of ours."""

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate", "os.rmdir")
_SAVED, _LOADING = "Checkpoint saved: ", "Loading checkpoint from "


@dataclass(frozen=True)
class Ending:
    """What happens to a process.

    Attributes:
        kind: ``none``; ``signal`` (``detail``) or ``kill`` at the ``at``-th poll of the request to
            stop; ``time`` up at that poll; ``kill saved`` after the ``at``-th checkpoint was
            announced; ``kill disk`` at, or ``kill write`` in the middle of, the ``at``-th operation
            that changes the disk; ``full`` from there on for ``detail`` operations; ``limit`` of
            ``at`` bytes on each file; ``cursor``, for references: where a checkpoint says
            ``detail``, as JSON.
        at: Counted from 1.
        detail: See above.
    """

    kind: str = "none"
    at: int = 0
    detail: str | int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a process: its exit status, what it wrote, and the notes of its reporter."""

    status: int
    output: str
    notes: Sequence[Mapping[str, Any]]

    def noted(self, what: str) -> list[Any]:
        return [note[what] for note in self.notes if what in note]


def run(argv: Sequence[str], root: Path, ending: Ending) -> Outcome:
    """Run `plora-cl` with ``argv`` in a child; operations below ``root`` are counted."""
    # Pipes, since a limit on the size of files would be one on these, too.
    output, notes = _pipe(), _pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_child(argv, root, ending, output[1], notes[1])
    for written in (output[1], notes[1]):
        os.close(written)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = _all_of(notes[0]).splitlines()
    return Outcome(status, _all_of(output[0]), [json.loads(line) for line in lines])


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe that holds all a child writes."""
    reading_end, writing_end = os.pipe()
    fcntl.fcntl(writing_end, fcntl.F_SETPIPE_SZ, 1 << 20)
    return reading_end, writing_end


def _all_of(descriptor: int) -> str:
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()


def _be_the_child(
    argv: Sequence[str], root: Path, ending: Ending, output: int, notes: int
) -> NoReturn:
    status: Any = CRASHED
    sys.dont_write_bytecode = True  # a limit or a kill would leave half of a .pyc to everybody
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
        logging.basicConfig(stream=sys.stderr, force=True)
        _follow(ending, root, notes)
        status = main(list(argv))
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - shown to the parent
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else CRASHED)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _follow(ending: Ending, root: Path, notes: int) -> None:
    """Make this process end as planned."""
    runs: list[Any] = []

    class CountedPolls(StopRequest):
        """Each poll counts, and takes a second."""

        polls = 0

        def __init__(self) -> None:
            super().__init__(clock=lambda: float(CountedPolls.polls))

        @property
        def requested(self) -> bool:
            CountedPolls.polls += 1
            if ending.kind == "kill" and CountedPolls.polls == ending.at:
                _kill()
            if ending.kind == "signal" and CountedPolls.polls == ending.at:
                os.kill(os.getpid(), getattr(signal, str(ending.detail)))
            if ending.kind == "cursor" and runs:
                cursor = runs[-1].components.cursor.state_dict()
                if json.dumps(cursor, sort_keys=True) == ending.detail:
                    self.request("the reference", 75)
            return super().requested

    reporter = _Notes(notes, ending)
    train: Any = plora_cl.cli.train.command
    train.StopRequest = CountedPolls
    train.reporter_for = lambda **_: contextlib.nullcontext(reporter)
    if ending.kind == "cursor":
        trainer: Any = plora_cl.training.own_loop
        build = trainer.build_run

        def build_and_remember(*arguments: Any, **options: Any) -> Any:
            runs.append(build(*arguments, **options))
            return runs[-1]

        trainer.build_run = build_and_remember
    if ending.kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (ending.at, resource.RLIM_INFINITY))
    if ending.kind in ("kill disk", "kill write", "full"):
        _watch_disk(ending, os.fsencode(root / "experiments"))


class _Notes(Reporter):
    """Writes down what was announced, and what the disk held at that instant."""

    def __init__(self, notes: int, ending: Ending) -> None:
        self._notes, self._ending = notes, ending
        self._saved = 0

    def message(self, text: str, /) -> None:
        print(text, flush=True)
        if text.startswith(_LOADING):
            self._note({"loading": text.removeprefix(_LOADING).removesuffix("...")})
        if text.startswith(_SAVED):
            self._saved += 1
            path = text.removeprefix(_SAVED).partition(".pt (")[0].removesuffix(".pt")
            cursor = self._note_saved(Path(path + ".pt"))
            if self._ending.kind == "kill saved" and self._saved == self._ending.at:
                _kill()
            if self._ending.kind == "cursor" and cursor == self._ending.detail:
                _kill()

    def _note_saved(self, path: Path) -> str | None:
        found = reading.checkpoint(path)
        cursor = found.cursor if found.manifest is not None else None
        saved: dict[str, Any] = {
            "name": path.name,
            "sha256": found.sha256,
            "cursor": cursor,
            "is_intact": found.is_intact,
            "there": sorted(p.name for p in path.parent.iterdir()),
        }
        if self._ending.kind == "cursor":
            saved["digests"] = digests(path.read_bytes())
        self._note({"saved": saved})
        return cursor

    def _note(self, note: Mapping[str, Any]) -> None:
        os.write(self._notes, json.dumps(note).encode() + b"\n")


def digests(data: bytes) -> dict[str, str]:
    """Return the digest of each component and object of a checkpoint, wall-clock times aside."""
    snapshot = decode(data)
    states = {name: state_digest(s) for name, s in snapshot.state.items() if name not in TIMED}
    return {**states, **{name: ref.sha256 for name, ref in snapshot.objects.items()}}


def _watch_disk(ending: Ending, place: bytes) -> None:
    """Count the operations that change files below ``place``, and break the planned one."""
    count = 0
    writes_half = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, writes_half
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, int) or not os.fsencode(path).startswith(place):
            return
        count += 1
        if ending.kind == "kill disk" and count == ending.at:
            _kill()
        if ending.kind == "kill write" and count == ending.at:
            writes_half = True
        if (
            ending.kind == "full"
            and ending.at <= count < ending.at + int(ending.detail)
            and event not in ("os.remove", "os.rmdir", "os.truncate")
        ):
            raise OSError(errno.ENOSPC, "No space left on device", os.fsdecode(path))

    write = os.write

    def write_half(descriptor: int, data: Any) -> int:
        if writes_half and Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(
            os.fsdecode(place)
        ):
            write(descriptor, bytes(data)[: len(data) // 2])
            _kill()
        return write(descriptor, data)

    vars(os)["write"] = write_half
    sys.addaudithook(watch)
