"""The tokenised examples of a task: written once, in blocks, and read through a memory map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plora_cl.bounded_reading import parse_json
from plora_cl.data.sources.base import SPLITS
from plora_cl.data.text_digest import TEXT_DIGEST_BYTES, text_digest
from plora_cl.errors import DataError

SCHEMA = pa.schema(
    [
        ("split", pa.int8()),  # index into SPLITS
        ("input_ids", pa.list_(pa.int32())),
        ("label", pa.int64()),
        ("text_digest", pa.binary(TEXT_DIGEST_BYTES)),
        ("text", pa.string()),
    ]
)
_FACTS = b"facts"


class ContentDigest:
    """SHA-256 over examples, column by column: the sizes of blocks do not change it."""

    def __init__(self) -> None:
        self._columns = [hashlib.sha256() for _ in range(4)]

    def update(
        self,
        labels: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        text_digests: bytes,
        tokens: npt.NDArray[np.int32],
    ) -> None:
        """Add a block of rows.

        Args:
            labels: ``[rows]``.
            lengths: Tokens per row, ``[rows]``.
            text_digests: 16 bytes a row.
            tokens: The rows' tokens, one row after the other, ``[sum(lengths)]``.
        """
        contents = (
            labels.astype("<i8").tobytes(),
            lengths.astype("<i8").tobytes(),
            text_digests,
            tokens.astype("<i4").tobytes(),
        )
        for column, content in zip(self._columns, contents, strict=True):
            column.update(content)

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        return hashlib.sha256(b"".join(column.digest() for column in self._columns)).hexdigest()


class TokenFileWriter:
    """Writes a token file. The file can be read after the ``with`` block, unless that failed.

    Args:
        path: File to create or replace.
        facts: Stored with the rows, next to the digest of each split; plain JSON.
    """

    def __init__(self, path: Path, **facts: object) -> None:
        self._file = path.open("wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._facts = facts
        self._contents = {split: ContentDigest() for split in SPLITS}

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Finish the file, or only close it after an error."""
        with self._file:
            if error is None:
                # In an empty block: a schema is written before the digests are known
                facts = {**self._facts, "digests": {s: self.digest(s) for s in SPLITS}}
                empty = pa.record_batch([[] for _ in SCHEMA], schema=SCHEMA)
                self._writer.write_batch(empty, {_FACTS: json.dumps(facts)})
                self._writer.close()

    def append(
        self,
        split: str,
        input_ids: Sequence[Sequence[int]],
        labels: Sequence[int],
        texts: Sequence[str],
    ) -> None:
        """Add a block of rows of one split.

        Args:
            split: One of `SPLITS`.
            input_ids: Token ids of each row, special tokens included, without padding.
            labels: Label of each row.
            texts: Text of each row, as the source has it.
        """
        if not len(labels):
            return
        text_digests = [text_digest(text) for text in texts]
        values = ([SPLITS.index(split)] * len(labels), input_ids, labels, text_digests, texts)
        columns = [pa.array(v, type=field.type) for v, field in zip(values, SCHEMA, strict=True)]
        self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        self._contents[split].update(
            np.fromiter(labels, dtype=np.int64, count=len(labels)),
            np.fromiter(map(len, input_ids), dtype=np.int64, count=len(labels)),
            b"".join(text_digests),
            np.fromiter(chain.from_iterable(input_ids), dtype=np.int32),
        )

    def digest(self, split: str) -> str:
        """Return the SHA-256 of the rows of ``split`` so far."""
        return self._contents[split].hexdigest()


class TokenFile:
    """Random access to a token file whose tokens and texts stay on disk.

    Memory: 13 bytes a row for any length of texts.

    Args:
        path: The file. It is opened once: replacing it later changes nothing.
        sha256: SHA-256 that its bytes must have; None accepts any.

    Attributes:
        path: As given.
        facts: Values stored with the rows.
        labels: ``[rows]``, int64.
        lengths: Tokens per row, ``[rows]``, int32.
        keeps: What has to live as long as the file is used, such as a lock.

    Raises:
        OSError: The file cannot be read.
        pyarrow.ArrowInvalid: The file is not a complete token file, or not the one expected.
        ValueError: The facts are damaged.
    """

    keeps: object = None

    def __init__(self, path: Path, *, sha256: str | None = None) -> None:
        with pa.memory_map(str(path)) as mapped:
            self.path, self._mapped = path, mapped.read_buffer()
        self._sha256 = self._digest()
        if sha256 not in (None, self._sha256):
            raise pa.ArrowInvalid(f"{path} does not have the SHA-256 {sha256}")
        reader = pa.ipc.open_file(self._mapped)
        if reader.schema != SCHEMA:
            raise pa.ArrowInvalid(f"{path} has columns {reader.schema.names}")
        found = map(reader.get_batch_with_custom_metadata, range(reader.num_record_batches))
        *blocks, (_, metadata) = found
        self.facts: dict[str, Any] = parse_json((metadata or {}).get(_FACTS, b""))
        columns = {name: [block[name] for block, _ in blocks] for name in SCHEMA.names}
        self._texts, self._text_digests = columns["text"], columns["text_digest"]
        self._tokens = [column.values.to_numpy() for column in columns["input_ids"]]
        self._offsets = [column.offsets.to_numpy() for column in columns["input_ids"]]
        self._starts = np.cumsum([0, *map(len, columns["label"])])
        self._splits = _joined(columns["split"], np.int8)
        self.labels = _joined(columns["label"], np.int64)
        self.lengths = _joined(map(np.diff, self._offsets), np.int32)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def rows_of(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of ``split``, ascending; none where nothing was written."""
        return np.flatnonzero(self._splits == SPLITS.index(split))

    def require_unchanged(self) -> None:
        """Compare every byte with what was there when the file was opened.

        Raises:
            DataError: They differ.
        """
        if self._digest() != self._sha256:
            raise DataError(
                f"{self.path} changed while a run read its tokens from it, so that what was "
                "computed may come from other texts than the run was started with; the next start "
                "tokenises them again: resume with --resume PATH from the last checkpoint of the "
                "task before, or start afresh with --overwrite"
            )

    def _digest(self) -> str:
        return hashlib.sha256(self._mapped).hexdigest()

    def tokens(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int32]]:
        """Return views of the token ids of ``rows``, each in ``[0, len)``."""
        found = []
        for block, row in self._located(rows):
            first, end = self._offsets[block][row : row + 2]
            found.append(self._tokens[block][first:end])
        return found

    def text_digests(self, rows: npt.NDArray[np.int64]) -> bytes:
        """Return the 16-byte digests of the texts of ``rows``, joined."""
        return b"".join(
            self._text_digests[block][row].as_py() for block, row in self._located(rows)
        )

    def texts(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the texts of ``rows`` as the source has them, whole."""
        return [self._texts[block][row].as_py() for block, row in self._located(rows)]

    def _located(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        return zip(blocks.tolist(), (rows - self._starts[blocks]).tolist(), strict=True)


def _joined(columns: Iterable[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return read_only(np.concatenate([np.empty(0, dtype), *map(np.asarray, columns)]))


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Refuse writes to ``array`` from now on; return it."""
    array.flags.writeable = False
    return array
