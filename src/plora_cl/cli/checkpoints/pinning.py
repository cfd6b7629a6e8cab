"""``plora-cl checkpoints pin`` and ``unpin``."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store import pins
from plora_cl.checkpoint.store.outgoing import has_list
from plora_cl.checkpoint.store.replacement import recover
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.checkpoints.command import RESUMED_FROM, command, locate, target
from plora_cl.cli.command import Answer
from plora_cl.errors import ExperimentLockedError


@command(
    "pin",
    "Keep a checkpoint from rotation, also while a run is in progress. Which other checkpoints "
    "stay does not change.",
    target(RESUMED_FROM),
    examples=["experiments/demo@checkpoint_task0_epoch1_batch99.pt", "experiments/demo"],
    ok="it is pinned",
    found="it is damaged, and was not pinned",
)
def pin(arguments: Namespace) -> Answer:
    """Pin one checkpoint."""
    found = locate(arguments.target)
    entry = found.checkpoint
    found.store.manifest(entry)  # reports damage now
    _recover(found.store)
    pins.pin(found.store, entry)
    return Answer({"checkpoint": str(entry.path), "pinned": True}, [f"Pinned: {entry.path}"])


@command(
    "unpin",
    "Let rotation have a checkpoint again; it stays until the run saves the next time.",
    target(RESUMED_FROM),
    examples=["experiments/demo@checkpoint_task0_epoch1_batch99.pt"],
    ok="it is not pinned",
)
def unpin(arguments: Namespace) -> Answer:
    """Unpin one checkpoint."""
    found = locate(arguments.target)
    entry = found.checkpoint
    was_pinned = pins.unpin(found.store, entry)
    return Answer(
        {"checkpoint": str(entry.path), "pinned": False, "was_pinned": was_pinned},
        [f"{'Unpinned' if was_pinned else 'Was not pinned'}: {entry.path}"],
    )


def _recover(store: CheckpointStore) -> None:
    """Finish or undo what a run left that was killed while it replaced an earlier one."""
    if has_list(store):
        folder = store.directory.parent
        with suppress(ExperimentLockedError), ExperimentLock.acquire(folder) as lock:
            recover(CheckpointStore(store.directory, lock.filesystem))
