"""What a refusal by the disk means for a checkpoint, with the path in the message."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plora_cl.errors import CheckpointError, CorruptCheckpointError

_DAMAGE = (errno.EIO, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.EUCLEAN)


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn a failed change to ``path``, of ``size`` bytes, into a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        amount = "" if size is None else f" ({size} bytes)"
        raise CheckpointError(
            f"cannot write {path}{amount}: {error.strerror or error}; earlier checkpoints are "
            "untouched"
        ) from error


@contextmanager
def reading(path: Path, missing: type[CheckpointError] = CorruptCheckpointError) -> Iterator[None]:
    """Tell damage on the disk from a refusal that has nothing to do with the content.

    Unreadable sectors and things that are not files are damage; lacking permission, for instance,
    is not, nor is a lack of memory: to skip such a checkpoint would silently go back in time.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise missing(f"{path} is missing") from error
    except OSError as error:
        kind = CorruptCheckpointError if error.errno in _DAMAGE else CheckpointError
        raise kind(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise CheckpointError(f"cannot read {path}: it does not fit into memory") from error


@contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """Put ``what`` in front of the message of a checkpoint error."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{what}: {error}") from error
