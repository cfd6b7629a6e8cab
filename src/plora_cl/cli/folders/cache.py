"""``plora-cl cache``: the caches of tokens and of generated texts."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plora_cl.cache_folder import default_cache_dir
from plora_cl.cli.command import Answer, argument, command
from plora_cl.cli.parser import OneOf
from plora_cl.cli.tables import Table
from plora_cl.errors import SettingsError
from plora_cl.folders.caches import CacheEntry, cache_entries, clear
from plora_cl.wording import shown_age, shown_bytes

_DAY = 86_400
_MOST_ABOUT = 40


@command(
    "cache",
    "Show the caches of tokenised and of generated texts, or clear them. What is cleared is "
    "computed again when a run needs it; what a living run uses always stays.",
    argument(
        "action",
        nargs="?",
        type=OneOf("list", "size", "clear"),
        default="list",
        metavar="list|size|clear",
        help="by default: list",
    ),
    argument("--dir", metavar="FOLDER", type=Path, help="cache_dir of a run, or the user's"),
    argument("--older-than", metavar="DAYS", type=float, help="only entries not used for so long"),
    argument("--dry-run", action="store_true", help="with clear: only show what would go"),
    examples=["", "clear --older-than 30 --dry-run"],
)
def run_cache(arguments: Namespace) -> Answer:
    """Show or clear caches."""
    folder = arguments.dir or default_cache_dir()
    if arguments.dry_run and arguments.action != "clear":
        raise SettingsError(["--dry-run needs clear"])
    oldest = time.time() - (arguments.older_than or 0) * _DAY
    found = [entry for entry in cache_entries(folder) if entry.used <= oldest]
    if arguments.action == "clear":
        return _cleared(folder, found, dry_run=arguments.dry_run)
    document = {
        "folder": str(folder),
        "bytes": sum(entry.bytes for entry in found),
        "entries": [_document(entry) for entry in found],
    }
    shown = [_total(folder, found)] if arguments.action == "size" else _listed(folder, found)
    return Answer(document, shown)


def _cleared(folder: Path, found: Sequence[CacheEntry], *, dry_run: bool) -> Answer:
    free = [entry for entry in found if not entry.is_in_use]
    gone = free if dry_run else clear(free)
    kept = [entry for entry in found if entry not in gone]
    verb = "would be removed" if dry_run else "removed"
    lines = [f"{_total(folder, gone)} {verb}"]
    if kept:
        lines.append(f"{_total(folder, kept)} stayed, which a living run uses")
    document = {
        "folder": str(folder),
        "dry_run": dry_run,
        "bytes": sum(entry.bytes for entry in gone),
        "removed": [_document(entry) for entry in gone],
        "in_use": [_document(entry) for entry in kept],
    }
    return Answer(document, lines)


def _document(entry: CacheEntry) -> dict[str, Any]:
    return {
        "folder": str(entry.folder),
        "kind": entry.kind,
        "about": entry.about,
        "bytes": entry.bytes,
        "last_used_seconds_ago": max(0.0, time.time() - entry.used),
        "in_use": entry.is_in_use,
    }


def _listed(folder: Path, found: Sequence[CacheEntry]) -> Iterator[str | Table]:
    if found:
        numbers = ("size", "last used")
        columns = ("entry", "kind", *numbers, "", "about")
        yield Table(str(folder), columns, [_row(entry) for entry in found], numbers)
    yield _total(folder, found)


def _row(entry: CacheEntry) -> tuple[str, ...]:
    about = entry.about
    return (
        *(entry.folder.name[:12], entry.kind, shown_bytes(entry.bytes)),
        f"{shown_age(time.time() - entry.used)} ago",
        "in use" if entry.is_in_use else "",
        about if len(about) <= _MOST_ABOUT else about[: _MOST_ABOUT - 3] + "...",
    )


def _total(folder: Path, found: Sequence[CacheEntry]) -> str:
    size = shown_bytes(sum(entry.bytes for entry in found))
    noun = "entry" if len(found) == 1 else "entries"
    return f"{folder}: {len(found)} {noun}, {size}"
