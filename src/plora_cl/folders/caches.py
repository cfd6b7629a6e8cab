"""The entries of the caches of tokens and of generated texts: what they take, and who uses them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from plora_cl.bounded_reading import parse_json
from plora_cl.cache_folder import GENERATED, TEMPORARY, TOKENS, alone, is_used, used_last

_KEY = re.compile(r"[0-9a-f]{64}")
_TEXT_KEY = re.compile(r"[0-9a-f]{64}\.json")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of a cache.

    Attributes:
        folder: Of the entry.
        kind: ``tokens``, of one task under one tokenizer, or ``generated``: all generated texts.
        about: The classes of the task, or the number of generated pieces.
        files: What can be removed.
        bytes: Of the files.
        used: When a run used it last, in seconds since the epoch.
        is_in_use: Whether a living process uses it, or that is not known.
    """

    folder: Path
    kind: str
    about: str
    files: Sequence[Path]
    bytes: int
    used: float
    is_in_use: bool


def cache_entries(cache: Path) -> list[CacheEntry]:
    """Return every entry in a cache folder, the one used last at the end.

    Files of others in the folder are not entries.

    Raises:
        OSError: The folder cannot be listed.
    """
    if not cache.is_dir():
        return []
    folders = sorted(path for path in cache.iterdir() if path.is_dir() and not path.is_symlink())
    found = [entry for folder in folders if (entry := _entry(folder)) is not None]
    return sorted(found, key=lambda entry: entry.used)


def clear(entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Remove the files of entries that no living process uses; return these entries.

    The empty folder of an entry stays, with its lock: a process may be waiting for it.

    Raises:
        OSError: The disk refused.
    """
    removed = []
    for entry in entries:
        lock = alone(entry.folder)
        if lock is None:
            continue
        try:
            for path in _files(entry.folder):
                path.unlink(missing_ok=True)
        finally:
            lock.close()
        removed.append(entry)
    return removed


def _entry(folder: Path) -> CacheEntry | None:
    files = list(_files(folder))
    if not files:
        return None
    status = [path.stat() for path in files]
    is_text = folder.name == GENERATED
    return CacheEntry(
        folder,
        "generated" if is_text else "tokens",
        f"{len(files)} files" if is_text else _classes(files),
        files,
        sum(each.st_size for each in status),
        used_last(folder) or max(each.st_mtime for each in status),
        is_used(folder),
    )


def _files(folder: Path) -> Iterator[Path]:
    if folder.name == GENERATED:
        places = (path for path in folder.glob("??/*") if not path.is_symlink())
        yield from (p for p in places if _TEXT_KEY.fullmatch(p.name) or p.suffix == TEMPORARY)
    elif _KEY.fullmatch(folder.name):
        found = (path for path in sorted(folder.iterdir()) if path.is_file())
        yield from (path for path in found if path.suffix in (TOKENS, TEMPORARY))


def _classes(files: Sequence[Path]) -> str:
    """Return the classes in a file of tokens; empty where it cannot be read."""
    for path in files:
        with (
            suppress(OSError, pa.ArrowException, ValueError, TypeError, LookupError),
            pa.memory_map(str(path)) as mapped,
            pa.ipc.open_file(mapped) as reader,
        ):
            last = reader.num_record_batches - 1
            _, metadata = reader.get_batch_with_custom_metadata(last)
            facts = parse_json((metadata or {}).get(b"facts", b""))
            return ", ".join(map(str, facts["classes"]))
    return ""
