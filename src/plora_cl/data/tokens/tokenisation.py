"""Tokenisation of a task, and the digest of its tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from plora_cl.data.sources.base import Row, TaskSource
from plora_cl.data.tokens.scan import Scan
from plora_cl.data.tokens.token_file import TokenFileWriter
from plora_cl.errors import DataError
from plora_cl.units import Progress, Unit

_ROWS_AT_ONCE = 2048
_CHARACTERS_AT_ONCE = 8 << 20

# A tokenizer reads a whole text before it cuts the tokens, which takes a hundred times the memory
# of the text. Of a longer text only a part is read: (least characters, characters per wanted
# token). The second, larger part is read if the first yields too few tokens.
_SHARES = ((1 << 16, 16), (1 << 20, 64))
_SPARE_TOKENS = 1024


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Refuse a tokenizer that cannot make padded batches of up to ``max_length`` tokens.

    Raises:
        DataError: It is not a fast one, has no padding token, or its special tokens alone fill
            ``max_length``.
    """
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise DataError(
            f"tokenizer {name} is not a fast one (no tokenizer.json); choose a model that has one"
        )
    if tokenizer.pad_token_id is None:
        raise DataError(
            f"tokenizer {name} has no padding token; choose an encoder such as "
            "distilbert-base-uncased, or set pad_token in its tokenizer_config.json"
        )
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_length <= special:
        raise DataError(
            f"max_length is {max_length}, and the {special} special tokens of tokenizer {name} "
            f"leave no room for text; set it to {special + 1} at least"
        )


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a SHA-256 over everything that decides the token ids of a text.

    Truncation and padding are excluded: every call to the tokenizer sets them.
    """
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description = {k: v for k, v in description.items() if k not in {"truncation", "padding"}}
    parts = [description, tokenizer.truncation_side]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_tokens(
    source: TaskSource,
    scanned: Scan,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    writer: TokenFileWriter,
    progress: Progress,
) -> None:
    """Tokenise every row of ``source``.

    Args:
        source: Source to read.
        scanned: Result of `scan`.
        tokenizer: A fast tokenizer.
        max_length: Longer texts are cut to this many tokens, special tokens included.
        writer: Receives the rows.
        progress: Receives the finished rows.

    Raises:
        DataError: A text has no tokens, or too few for its length.
    """
    labels = {name: index for index, name in enumerate(scanned.classes)}
    total, done = sum(scanned.rows.values()), 0
    for split in source.splits():
        validates = scanned.validates if split == "train" else None
        first = 0
        for rows in _blocks(source.rows(split)):
            ids = ids_of_rows(tokenizer, rows, max_length, source.place(split))
            for target, kept in _targets(split, validates, first, len(rows)):
                writer.append(
                    target,
                    [ids[row] for row in kept],
                    # -1: the file changed since the scan; the caller finds out
                    [labels.get(rows[row].label, -1) for row in kept],
                    [rows[row].text for row in kept],
                )
            first += len(rows)
            done += len(rows)
            progress(Unit(f"tokenising {source.name}", done, total))


def _blocks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    block: list[Row] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += len(row.text)
        if len(block) == _ROWS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


def ids_of_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, place: str
) -> list[list[int]]:
    """Return the token ids of each row, special tokens included, cut to ``max_length``.

    Args:
        tokenizer: A fast tokenizer.
        rows: Their texts are read, and their lines named in messages.
        max_length: Most tokens of a text.
        place: Where the rows are from, for messages.

    Raises:
        DataError: A text has no tokens, or too few for its length.
    """
    ids = token_ids(tokenizer, _readable(tokenizer, rows, max_length, place), max_length)
    _check_not_empty(ids, rows, place)
    return ids


def _readable(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, place: str
) -> list[str]:
    """Return the text of each row, or the part of it that its first ``max_length`` tokens need.

    Tokens next to a cut differ from those of the whole text, so the part has spare tokens.

    Raises:
        DataError: A text is too long, and the part that is read has too few tokens.
    """
    shares = [max(least, of_a_token * max_length) for least, of_a_token in _SHARES]
    texts = []
    for row in rows:
        part = next(
            (p for share in shares if (p := _part(tokenizer, row.text, share, max_length))), None
        )
        if part is None:
            raise DataError(
                f"{place}:{row.line}: a text of {len(row.text)} characters, and the tokenizer "
                f"finds too few tokens in {shares[-1]} of them to fill max_length; cut it to the "
                "part that matters or remove the row"
            )
        texts.append(part)
    return texts


def _part(tokenizer: PreTrainedTokenizerBase, text: str, share: int, max_length: int) -> str | None:
    """Return ``share`` characters of a longer text; None if they have too few tokens."""
    if len(text) <= share:
        return text
    part = text[:share] if tokenizer.truncation_side == "right" else text[-share:]
    ids = tokenizer(part, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return part if len(ids) >= 2 * max_length + _SPARE_TOKENS else None


def _targets(
    split: str, validates: npt.NDArray[np.bool_] | None, first: int, count: int
) -> list[tuple[str, list[int]]]:
    """Return each target split with its rows among the ``count`` rows from ``first`` on."""
    if validates is None:
        return [(split, list(range(count)))]
    chosen = validates[first : first + count]
    return [
        ("train", np.flatnonzero(~chosen).tolist()),
        ("validation", np.flatnonzero(chosen).tolist()),
    ]


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int
) -> list[list[int]]:
    """Return the token ids of each text, special tokens included, cut to ``max_length``."""
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return encoded["input_ids"]


def _check_not_empty(ids: Sequence[Sequence[int]], rows: Sequence[Row], place: str) -> None:
    for row, tokens in zip(rows, ids, strict=True):
        if not len(tokens):
            raise DataError(
                f"{place}:{row.line}: the tokenizer finds no token in {row.text[:40]!r}; "
                "remove the row"
            )
