"""Tokenised tasks on disk, found again by what they were made from.

An entry is a folder named by a digest of content, tokenizer and length. Its index file is
renamed into place last, and names the digest of every other file: an entry without a matching
index is no entry, and is built again. Where a disk has no locks, several processes may build an
entry at once: each writes under names of its own, and all of them write the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from plora_cl.bounded_reading import parse_json, read_small
from plora_cl.data.sources.base import SPLITS, TaskSource
from plora_cl.data.tokens.scan import Scan, scan
from plora_cl.data.tokens.token_file import TokenFile
from plora_cl.data.tokens.tokenisation import Progress, tokenizer_digest, write_token_files
from plora_cl.errors import DataError

FORMAT_VERSION = 2

_INDEX = "index"
_MOST_INDEX_BYTES = 16 << 20  # it names classes, not examples
_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 86_400.0  # nobody builds for a day without writing to each of its files
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenisedTask:
    """An entry of the cache.

    Attributes:
        source: The `content_digest` of what it was made from.
        classes: Class names in label order.
        files: Token file of each split.
        digests: SHA-256 of each split's texts, labels and token ids.
        duplicates: ``"first/second"`` -> rows of the second split whose text the first also has.
    """

    source: str
    classes: tuple[str, ...]
    files: Mapping[str, TokenFile]
    digests: Mapping[str, str]
    duplicates: Mapping[str, int]


def default_cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return ``$PLORA_CL_CACHE``, else ``plora_cl`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := environment.get("PLORA_CL_CACHE"):
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "plora_cl"


def tokenised(
    source: TaskSource,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    cache_dir: Path,
    progress: Progress,
    hold_out: bool = True,
) -> TokenisedTask:
    """Return ``source`` tokenised, from the cache if it holds it undamaged.

    Several processes may ask for the same entry: one builds it, the others wait. Where the disk has
    no locks, each of them builds it.

    Args:
        source: What to read.
        tokenizer: A fast tokenizer with a padding token.
        max_length: Longer texts are cut to this many tokens, special tokens included.
        cache_dir: Where entries are.
        progress: Told ``(what, rows done, rows in all)``.
        hold_out: Take training rows for validation where the source has no such split; otherwise
            its validation split is empty then.

    Raises:
        DataError: The source cannot be read, or the cache folder cannot be written.
    """
    content = source.content_digest()
    all_to_train = not hold_out and "validation" not in source.splits()
    key = json.dumps(
        [
            FORMAT_VERSION,
            content,
            tokenizer_digest(tokenizer),
            max_length,
            tokenizers.__version__,
            pa.__version__,
            *["nothing held out"] * all_to_train,
        ]
    )
    folder = cache_dir / hashlib.sha256(key.encode()).hexdigest()
    with suppress(_UnusableEntryError):
        return _open(folder, content)
    with _locked(folder):
        try:
            return _open(folder, content)
        except _AbsentEntryError:
            pass
        except _UnusableEntryError as error:
            _logger.warning("%s is damaged; tokenising %s again", error, source.name)
        scanned = scan(source, hold_out=hold_out)
        try:
            _build(folder, source, content, scanned, tokenizer, max_length, progress)
        except OSError as error:
            raise _refused(error) from error
        try:
            return _open(folder, content)
        except _UnusableEntryError as error:
            raise DataError(
                f"{error} reads back differently from what was just written; the disk may be "
                "failing: choose another with the environment variable PLORA_CL_CACHE"
            ) from None


class _UnusableEntryError(Exception):
    """An entry cannot be used because of the file that the message names."""


class _AbsentEntryError(_UnusableEntryError):
    """There is no entry yet."""


def _open(folder: Path, source: str) -> TokenisedTask:
    """Return the entry in ``folder``, made from ``source``, all of it compared with its digests."""
    try:
        seal, _, content = read_small(folder / _INDEX, _MOST_INDEX_BYTES).partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        raise _AbsentEntryError(folder) from None
    except OSError:
        raise _UnusableEntryError(folder / _INDEX) from None
    if seal.decode("latin-1") != hashlib.sha256(content).hexdigest():
        raise _UnusableEntryError(folder / _INDEX)
    try:
        return _entry(folder, source, parse_json(content))
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ):  # ArrowInvalid is a ValueError
        raise _UnusableEntryError(folder) from None


def _entry(folder: Path, source: str, index: dict[str, Any]) -> TokenisedTask:
    files = {}
    for split in SPLITS:
        path, expected = _token_file(folder, split), str(index["files"][split])
        try:
            if not path.is_file():
                raise _UnusableEntryError(path)
            files[split] = TokenFile(path, sha256=expected)
        except (OSError, pa.ArrowException):
            raise _UnusableEntryError(path) from None
    return TokenisedTask(
        source=source,
        classes=tuple(index["classes"]),
        files=files,
        digests=index["digests"],
        duplicates=index["duplicates"],
    )


def _refused(error: OSError) -> DataError:
    return DataError(
        f"cannot write to the cache of tokenised texts: {error}; choose another folder with the "
        "environment variable PLORA_CL_CACHE"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise _refused(error) from error
    with lock:
        with suppress(OSError):  # NFS without lockd, Lustre without -o flock
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(
    folder: Path,
    source: TaskSource,
    content: str,
    scanned: Scan,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    progress: Progress,
) -> None:
    """Tokenise ``source`` into ``folder``, whose lock is held where there are locks."""
    _remove_abandoned(folder)
    own = f"{uuid.uuid4().hex}{_TEMPORARY}"
    temporary = {split: folder / f"{split}.arrow.{own}" for split in SPLITS}
    with ExitStack() as cleanup:
        for path in temporary.values():
            cleanup.callback(path.unlink, missing_ok=True)
        digests = write_token_files(
            source, scanned, tokenizer, max_length=max_length, paths=temporary, progress=progress
        )
        if source.content_digest() != content:
            raise DataError(
                f"task {source.name!r}: a file such as {source.place('train')} changed while it "
                "was read; try again once nothing writes to it"
            )
        index = {
            "classes": list(scanned.classes),
            "duplicates": dict(scanned.duplicates),
            "digests": digests,
            "files": {split: _file_digest(path) for split, path in temporary.items()},
        }
        for split, path in temporary.items():
            path.replace(_token_file(folder, split))
    _sync_folder(folder)
    _write_index(folder, json.dumps(index).encode(), folder / f"{_INDEX}.{own}")


def _remove_abandoned(folder: Path) -> None:
    """Remove what a builder left behind that was killed."""
    for path in folder.glob(f"*{_TEMPORARY}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def _write_index(folder: Path, content: bytes, temporary: Path) -> None:
    with ExitStack() as cleanup:
        cleanup.callback(temporary.unlink, missing_ok=True)
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / _INDEX)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _token_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.arrow"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
