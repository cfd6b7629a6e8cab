"""Tokenised examples on disk: written once, in blocks, and read through a memory map."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plora_cl.errors import DataError

TEXT_DIGEST_BYTES = 16
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("label", pa.int64()),
        ("text_digest", pa.binary(TEXT_DIGEST_BYTES)),
        ("text", pa.string()),
    ]
)


def text_digest(text: str) -> bytes:
    """Return 16 bytes that stand for ``text``."""
    return hashlib.blake2b(text.encode(), digest_size=TEXT_DIGEST_BYTES).digest()


class ContentDigest:
    """SHA-256 over examples, column by column, so that the blocks they come in do not matter."""

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
    """Writes a token file; what it wrote is durable once the ``with`` block has ended well.

    Args:
        path: File to create or replace. It is readable only after the block.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._content = ContentDigest()
        self.rows = 0

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish and fsync the file, or only close it after an error."""
        with self._file:
            if error is None:
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())

    def append(
        self,
        input_ids: Sequence[Sequence[int]],
        labels: Sequence[int],
        texts: Sequence[str],
    ) -> None:
        """Add a block of rows, kept together on disk.

        Args:
            input_ids: Token ids of each row, special tokens included, without padding.
            labels: Label of each row.
            texts: Text of each row, as the source has it.
        """
        if not len(labels):
            return
        text_digests = [text_digest(text) for text in texts]
        columns = [
            pa.array(column, type=field.type)
            for column, field in zip((input_ids, labels, text_digests, texts), SCHEMA, strict=True)
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        self._content.update(
            np.fromiter(labels, dtype=np.int64, count=len(labels)),
            np.fromiter(map(len, input_ids), dtype=np.int64, count=len(labels)),
            b"".join(text_digests),
            np.fromiter(chain.from_iterable(input_ids), dtype=np.int32),
        )
        self.rows += len(labels)

    def digest(self) -> str:
        """Return the SHA-256 of the rows so far."""
        return self._content.hexdigest()


class TokenFile:
    """Random access to a token file whose tokens and texts stay on disk.

    Memory: 12 bytes a row, whatever the texts.

    Args:
        path: The file; opened once, so that another one of this name changes nothing.
        sha256: What its bytes must have; anything if None.

    Attributes:
        labels: ``[rows]``, int64.
        lengths: Tokens per row, ``[rows]``, int32.

    Raises:
        pyarrow.ArrowInvalid: The file is not a complete token file, or not the one expected.
    """

    def __init__(self, path: Path, *, sha256: str | None = None) -> None:
        with pa.memory_map(str(path)) as mapped:
            self._path, self._mapped = path, mapped.read_buffer()
        self._sha256 = self._digest()
        if sha256 not in (None, self._sha256):
            raise pa.ArrowInvalid(f"{path} does not have the SHA-256 {sha256}")
        reader = pa.ipc.open_file(self._mapped)
        if reader.schema != SCHEMA:
            raise pa.ArrowInvalid(f"{path} has columns {reader.schema.names}")
        blocks = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._tokens = [block["input_ids"].values.to_numpy() for block in blocks]
        self._offsets = [block["input_ids"].offsets.to_numpy() for block in blocks]
        self._text_digests = [
            np.frombuffer(block["text_digest"].buffers()[1], dtype=f"V{TEXT_DIGEST_BYTES}")
            for block in blocks
        ]
        self._texts = [block["text"] for block in blocks]
        self._starts = np.cumsum([0, *(block.num_rows for block in blocks)])
        self.labels = np.concatenate(
            [np.empty(0, np.int64), *(block["label"].to_numpy() for block in blocks)]
        )
        self.lengths = np.concatenate(
            [np.empty(0, np.int32), *(np.diff(offsets) for offsets in self._offsets)]
        )
        self.labels.flags.writeable = False
        self.lengths.flags.writeable = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def require_unchanged(self) -> None:
        """Compare every byte with what was there when the file was opened.

        Raises:
            DataError: They differ.
        """
        if self._digest() != self._sha256:
            raise DataError(
                f"{self._path} changed while a run read its tokens from it, so that what was "
                "computed may come from other texts than the run was started with; the next start "
                "tokenises them again: go on with --resume PATH from the last checkpoint of the "
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
            self._text_digests[block][row].tobytes() for block, row in self._located(rows)
        )

    def texts(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the texts of ``rows`` as the source has them, whole."""
        return [self._texts[block][row].as_py() for block, row in self._located(rows)]

    def _located(self, rows: npt.NDArray[np.int64]) -> zip[tuple[int, int]]:
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        return zip(blocks.tolist(), (rows - self._starts[blocks]).tolist(), strict=True)
