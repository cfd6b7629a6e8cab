"""Reading checkpoints by the path of an experiment folder or of one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from plora_cl.checkpoint.format.naming import is_checkpoint
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools import verification
from plora_cl.errors import CheckpointNotFoundError

if TYPE_CHECKING:
    from plora_cl.checkpoint.snapshot.loading import Resumable


def load_checkpoint(
    path: str | Path, *, is_known: Callable[[str], bool] = lambda _: False
) -> Resumable:
    """Read a checkpoint and all it refers to, every byte verified; nothing in it is executed.

    Args:
        path: A checkpoint file, or an experiment folder for the checkpoint that a run would be
            resumed from: the newest one that is not damaged.
        is_known: Tells by its SHA-256 whether constant tensors need not be read, for instance
            because they are in memory.

    Returns:
        The snapshot (``snapshot.state`` by component, ``snapshot.cursor``, ``snapshot.facts``) and
        the constant tensors (``objects``).

    Raises:
        CheckpointNotFoundError: There is none.
        CorruptCheckpointError: It is damaged; for a folder, every checkpoint is.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    from plora_cl.checkpoint.snapshot.loading import load, newest_usable  # imports PyTorch

    store, entry = _located(Path(path))
    found = (
        newest_usable(store, is_known=is_known)
        if entry is None
        else load(store, entry, is_known=is_known)
    )
    if found is None:
        raise CheckpointNotFoundError(f"no checkpoint in {store.directory}")
    return found


def verify(path: str | Path) -> verification.Verification:
    """Read every byte of one checkpoint, or of all of an experiment folder, in constant memory.

    Damage is reported in the result, and not raised.

    Args:
        path: A checkpoint file, or an experiment folder.

    Raises:
        CheckpointNotFoundError: There is no such file or folder.
        CheckpointError: The folder cannot be listed.
    """
    store, entry = _located(Path(path))
    return verification.verify(store, None if entry is None else [entry])


def store_in(path: Path) -> CheckpointStore | None:
    """Return the checkpoints of experiment folder ``path``, or those directly in it; None if none.

    An experiment folder may itself be called ``checkpoints``, and so what is in it comes first.

    Raises:
        CheckpointError: The folder cannot be listed.
    """
    for directory in (path / "checkpoints", path):
        if directory.is_dir():
            store = CheckpointStore(directory)
            if directory.name == "checkpoints" or store.everything():
                return store
    return None


def _located(path: Path) -> tuple[CheckpointStore, CheckpointEntry | None]:
    if is_checkpoint(path.name):
        return CheckpointStore(path.parent), CheckpointEntry.at(path)
    store = store_in(path)
    if store is None:
        if path.is_dir():
            what = f"no checkpoint in {path}: it has no folder checkpoints"
        else:
            what = f"{path} is not a checkpoint" if path.exists() else f"{path} does not exist"
        raise CheckpointNotFoundError(
            f"{what}; expected an experiment folder, or a file in its folder checkpoints such as "
            "checkpoint_task0_epoch1_batch99.pt"
        )
    return store, None
