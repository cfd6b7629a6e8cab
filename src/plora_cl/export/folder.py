"""A folder that appears complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plora_cl.checkpoint.disk.filesystem import Filesystem, partial_path
from plora_cl.errors import OutputError

LINEAGE = "lineage.json"
"""The file that says what an export was made from; only folders that have it are replaced."""
FORMAT = "plora-cl export 1"

_READABLE = 0o666


def require_writable(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced, or that cannot be made.

    Args:
        out: The folder.
        overwrite: An earlier export may be replaced.

    Raises:
        OutputError: It exists and is not to be replaced, or its parent is no folder.
    """
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out}: there is no folder {out.absolute().parent}; make it")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise OutputError(f"{out} exists; replace it with --overwrite, or give another --out")
    if out.is_symlink() or not out.is_dir() or not _is_replaceable(out):
        raise OutputError(
            f"{out} exists and is no export of plora-cl (it has no {LINEAGE} of one), so that "
            "--overwrite leaves it alone; give another --out"
        )


def _is_replaceable(folder: Path) -> bool:
    if next(folder.iterdir(), None) is None:
        return True
    try:
        found = json.loads((folder / LINEAGE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


@contextmanager
def appearing(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a new folder that gets the name ``out`` at the end of the ``with`` block.

    If the block raises, nothing is left of it, and an earlier export is still there.

    Args:
        out: The folder.
        overwrite: An earlier export may be replaced.

    Raises:
        OutputError: See `require_writable`; or the disk refuses.
    """
    require_writable(out, overwrite=overwrite)
    new = partial_path(out.absolute())
    try:
        new.mkdir()
        yield new
        _put(new, out.absolute(), overwrite=overwrite)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _put(new: Path, out: Path, *, overwrite: bool) -> None:
    disk = Filesystem()
    for path in sorted(new.rglob("*")):
        if path.is_file():
            path.chmod(_READABLE & ~_umask())  # safetensors makes files for its user alone
            with path.open("rb") as file:
                os.fsync(file.fileno())
    require_writable(out, overwrite=overwrite)  # again: writing took a while
    if not out.exists():
        disk.rename(new, out)
    else:
        old = partial_path(out)
        disk.rename(out, old)
        try:
            disk.rename(new, out)
        except BaseException:
            disk.rename(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    disk.sync_directory(out.parent)
