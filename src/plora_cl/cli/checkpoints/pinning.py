"""``plora-cl checkpoints pin``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.outgoing import has_list
from plora_cl.checkpoint.store.pins import pin
from plora_cl.checkpoint.store.replacement import recover
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.checkpoints.command import (
    Target,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.exit import OK
from plora_cl.errors import ExperimentLockedError


def main(argv: Sequence[str]) -> int:
    """Pin what ``argv`` names; return the exit code."""
    parser = command_parser(
        "pin",
        "Keep a checkpoint from rotation, also while a run is going on. Which other checkpoints "
        "stay does not change.",
        ["experiments/demo@checkpoint_task0_epoch1_batch99.pt", "experiments/demo"],
        ok="it is pinned",
        found="it is damaged, and was not pinned",
    )
    add_target(parser, default="; a folder stands for the one it would be resumed from")
    arguments = parser.parse_args(argv)
    return finish(lambda: _pin(locate(arguments.target), as_json=arguments.json))


def _pin(target: Target, *, as_json: bool) -> int:
    entry = target.checkpoint
    target.store.manifest(entry)  # damage is worth knowing now
    _undo_replacement(target.store)
    pin(target.store, entry)
    if as_json:
        write_json({"checkpoint": str(entry.path), "pinned": True})
    else:
        print(f"Pinned: {entry.path}")
    return OK


def _undo_replacement(store: CheckpointStore) -> None:
    """Settle what a run left that was killed while it took the place of an earlier one."""
    if has_list(store):
        folder = store.directory.parent
        with suppress(ExperimentLockedError), ExperimentLock.acquire(folder) as lock:
            recover(CheckpointStore(store.directory, lock.filesystem))
