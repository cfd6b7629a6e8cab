"""A split of a task: tokenised rows on disk that become padded batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from plora_cl.data.batches import Batch
from plora_cl.data.tokens.token_file import ContentDigest, TokenFile, read_only

_DIGEST_BLOCK = 4096


class Split:
    """Rows of a token file, in a fixed order.

    A split has no state: equal arguments always give equal batches.

    Args:
        file: File that holds the rows.
        task: Zero-based index of the task, copied into every batch.
        pad_token_id: Fills shorter rows of a batch, on the right.
        rows: Rows of ``file`` to take, in this order; all of them if None.
        digest: The `digest` of these rows, if it is known.
    """

    def __init__(
        self,
        file: TokenFile,
        *,
        task: int,
        pad_token_id: int,
        rows: npt.NDArray[np.int64] | None = None,
        digest: str | None = None,
    ) -> None:
        self._file = file
        self._rows = np.arange(len(file)) if rows is None else rows
        self._task, self._pad_token_id = task, pad_token_id
        self._digest = digest

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._rows)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into the task's classes, ``[examples]``; read-only."""
        return read_only(self._file.labels[self._rows])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens per example, special tokens included, ``[examples]``; read-only."""
        return read_only(self._file.lengths[self._rows])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over texts, labels and token ids of these rows in this order."""
        if self._digest is not None:
            return self._digest
        content = ContentDigest()
        for first in range(0, len(self), _DIGEST_BLOCK):
            rows = self._rows[first : first + _DIGEST_BLOCK]
            content.update(
                self._file.labels[rows],
                self._file.lengths[rows].astype(np.int64),
                self._file.text_digests(rows),
                np.concatenate(self._file.tokens(rows)),
            )
        return content.hexdigest()

    def require_unchanged(self) -> None:
        """Compare the whole file, other splits included, with what it was.

        Raises:
            DataError: It changed since it was opened.
        """
        self._file.require_unchanged()

    def texts(self) -> list[str]:
        """Return the text of every example as the source has it, not cut to a length."""
        return self._file.texts(self._rows)

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Return the given rows, in that order, padded to the longest of them.

        Raises:
            IndexError: A row is not in ``[0, len)``.
        """
        rows = self._in_file(rows)
        lengths = self._file.lengths[rows]
        longest = int(lengths.max(initial=0))
        input_ids = np.full((len(rows), longest), self._pad_token_id, dtype=np.int64)
        for line, tokens in zip(input_ids, self._file.tokens(rows), strict=True):
            line[: len(tokens)] = tokens
        mask = np.arange(longest) < lengths[:, None]
        return Batch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            labels=torch.from_numpy(self._file.labels[rows]),
            task=self._task,
        )

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """Rows by length, shortest first, ties in row order: little padding; read-only."""
        return read_only(np.argsort(self.lengths, kind="stable"))

    def in_order(self, batch_size: int, *, first: int = 0) -> Iterator[Batch]:
        """Yield batches of the examples in `order`, starting at position ``first``."""
        for start in range(first, len(self), batch_size):
            yield self.batch(self.order[start : start + batch_size])

    def subset(self, rows: npt.NDArray[np.int64]) -> Split:
        """Return the given rows, in that order, as a split over the same file.

        Raises:
            IndexError: A row is not in ``[0, len)``.
        """
        return Split(
            self._file,
            task=self._task,
            pad_token_id=self._pad_token_id,
            rows=self._in_file(np.asarray(rows, dtype=np.int64)),
        )

    def _in_file(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(
                f"rows {int(rows.min())}..{int(rows.max())} of a split that has {len(self)}"
            )
        return self._rows[rows]
