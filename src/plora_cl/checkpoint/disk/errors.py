"""Errors of the disk as errors of a checkpoint, with the path in the message."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plora_cl.errors import CheckpointError, CorruptCheckpointError

_DAMAGE = (errno.EIO, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.EUCLEAN)


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn a failed write of ``size`` bytes to ``path`` into a `CheckpointError`."""
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
    """Turn a failed read into an error that tells damage from other refusals.

    Unreadable sectors and things that are not files are damage. A lack of permission or of memory
    is not: skipping such a checkpoint would silently resume from an older one.
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
