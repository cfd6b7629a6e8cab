"""Files that a run leaves beside its checkpoints: settings, results, the run log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plora_cl.checkpoint.filesystem import LocalFilesystem, ReadableBytes, write_durably
from plora_cl.errors import OutputError


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Turn a failed change to ``path`` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; mend that (is the disk full?) and "
            "start the command again: a run with checkpoints goes on with --resume auto"
        ) from error


def write_output(path: Path, data: ReadableBytes) -> None:
    """Put ``data`` at ``path``, in a folder that is made if need be: durably, all or nothing.

    Raises:
        OutputError: The disk refused; the message names the file.
    """
    with recording(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(LocalFilesystem(), path, data)
