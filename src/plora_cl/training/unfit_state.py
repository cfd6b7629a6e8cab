"""A checkpoint under a seal that is right, and whose state no run of these settings saves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from plora_cl.checkpoint.disk.errors import naming
from plora_cl.errors import IncompatibleCheckpointError

_NOT_FITTING = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError),
    AssertionError,
)


@contextmanager
def refusing_what_does_not_fit(path: Path) -> Iterator[None]:
    """Name the checkpoint at ``path`` where taking its content apart fails.

    Raises:
        IncompatibleCheckpointError: It does.
    """
    try:
        with naming(path):
            yield
    except torch.OutOfMemoryError:
        raise
    except _NOT_FITTING as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise IncompatibleCheckpointError(
            f"{path}: its state is not one that a run with these settings saves ({reason}); take "
            "another checkpoint with --resume PATH, or start afresh with --overwrite"
        ) from error
