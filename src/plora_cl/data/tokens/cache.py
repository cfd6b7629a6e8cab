"""A cache of tokenised tasks on disk, keyed by content, tokenizer and length.

An entry is a folder with one token file, which is named by the SHA-256 of its bytes. Renaming the
file into place commits it. A file that does not match its name, after a power cut for instance, is
built again, so nothing is fsynced. On a disk without locks several processes may build an entry at
once: each writes under a temporary name, and all of them write the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from plora_cl.cache_folder import TEMPORARY, TOKENS, use
from plora_cl.data.sources.base import SPLITS, TaskSource
from plora_cl.data.tokens.scan import scan
from plora_cl.data.tokens.token_file import TokenFile, TokenFileWriter
from plora_cl.data.tokens.tokenisation import tokenizer_digest, write_tokens
from plora_cl.errors import DataError
from plora_cl.units import Progress

FORMAT_VERSION = 3

_ABANDONED_SECONDS = 86_400.0  # no build goes a day without writing to its file
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenisedTask:
    """An entry of the cache.

    Attributes:
        source: The `content_digest` of the source.
        classes: Class names in label order.
        file: Rows of all splits.
        digests: SHA-256 of each split's texts, labels and token ids.
        duplicates: ``"first/second"`` -> rows of the second split whose text the first also has.
    """

    source: str
    classes: tuple[str, ...]
    file: TokenFile
    digests: Mapping[str, str]
    duplicates: Mapping[str, int]


def tokenised(
    source: TaskSource,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    cache_dir: Path,
    progress: Progress,
    hold_out: bool = True,
) -> TokenisedTask:
    """Return ``source`` tokenised, from the cache if it has an undamaged entry.

    If several processes need the same entry, one builds it and the others wait. On a disk without
    locks each of them builds it.

    Args:
        source: Source to read.
        tokenizer: A fast tokenizer with a padding token.
        max_length: Longer texts are cut to this many tokens, special tokens included.
        cache_dir: Folder of the cache.
        progress: Receives the finished rows.
        hold_out: Hold out training rows for validation if the source has no such split; if False,
            the validation split is empty in that case.

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
    use_of_entry = use(folder)  # before it is opened: nobody removes it any more
    for path in _files(folder):
        if (entry := _open(path, content, use_of_entry)) is not None:
            return entry
    try:
        with _locked(folder):
            for path in _files(folder):
                if (entry := _open(path, content, use_of_entry)) is not None:
                    return entry
                _logger.warning("%s is damaged; tokenising %s again", path, source.name)
            path = _build(folder, source, content, tokenizer, max_length, progress, hold_out)
            entry = _open(path, content, use_of_entry)
    except OSError as error:
        raise DataError(
            f"cannot write to the cache of tokenised texts: {error}; choose another folder with "
            "the environment variable PLORA_CL_CACHE"
        ) from error
    if entry is None:
        raise DataError(
            f"{path} reads back differently from what was just written; the disk may be failing: "
            "choose another with the environment variable PLORA_CL_CACHE"
        )
    return entry


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob(f"*{TOKENS}")) if path.is_file()]


def _open(path: Path, source: str, use_of_entry: object) -> TokenisedTask | None:
    """Return the entry at ``path``, made from ``source``; None if it does not match its name."""
    try:
        file = TokenFile(path, sha256=path.stem)
        file.keeps = use_of_entry
        return TokenisedTask(
            source=source,
            classes=tuple(file.facts["classes"]),
            file=file,
            digests={split: file.facts["digests"][split] for split in SPLITS},
            duplicates=dict(file.facts["duplicates"]),
        )
    except (OSError, pa.ArrowException, ValueError, TypeError, LookupError):
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        with suppress(OSError):  # NFS without lockd, Lustre without -o flock
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(
    folder: Path,
    source: TaskSource,
    content: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    progress: Progress,
    hold_out: bool,
) -> Path:
    """Tokenise ``source`` into a file of ``folder``; call with its lock held."""
    _remove_abandoned(folder)
    scanned = scan(source, hold_out=hold_out)
    facts = {"classes": scanned.classes, "duplicates": dict(scanned.duplicates)}
    temporary = folder / f"{uuid.uuid4().hex}{TEMPORARY}"
    try:
        with TokenFileWriter(temporary, **facts) as writer:
            write_tokens(
                source, scanned, tokenizer, max_length=max_length, writer=writer, progress=progress
            )
        if source.content_digest() != content:
            raise DataError(
                f"task {source.name!r}: a file such as {source.place('train')} changed while it "
                "was read; try again once nothing writes to it"
            )
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return temporary.replace(folder / f"{digest}{TOKENS}")
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed build left behind."""
    for path in folder.glob(f"*{TEMPORARY}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
