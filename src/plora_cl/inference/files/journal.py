"""The journal of an unfinished output: which blocks are predicted, and of what.

A line of JSON says whose output it is, and each further one holds a block of rows and the SHA-256
of all texts so far. A line that was cut off is computed again. Blocks are predicted as a whole, so
that an interrupted output ends with the bytes of an uninterrupted one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from plora_cl.errors import OutputError
from plora_cl.inference.files.outputs import OutputRow
from plora_cl.inference.files.rows import InputRow

_FORMAT = "plora-cl predict 1"


def journal_path(output: Path) -> Path:
    """Return where the journal of an output is."""
    return output.with_name(f"{output.name}.partial")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed change to ``path`` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; fix that (is the disk full?) and "
            "give the same command again: it continues where it stopped"
        ) from error


class TextsDigest:
    """A SHA-256 over rows, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, row: InputRow) -> None:
        """Add a row."""
        text = row.text.encode()
        self._hash.update(b"%d %d " % (len(text), row.problem is not None) + text)

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        return self._hash.hexdigest()


class Journal:
    """The journal of one output, open and locked.

    Args:
        path: Of the journal; made where there is none.
        identity: Of the predictions; each value is told by its name where it differs.
        anew: Forget what the journal holds.

    Attributes:
        rows: Number of rows that it holds.
        texts: Digest of their texts; empty before the first.

    Raises:
        OutputError: It is that of other predictions, or another process writes to it.
        OSError: The disk refuses.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, anew: bool) -> None:
        self.path = path
        self.rows, self.texts = 0, ""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            self._lock()
            if anew:
                self._file.truncate(0)
            self._begin(dict(identity))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, which gives the lock back."""
        self._file.close()

    def append(self, rows: Sequence[OutputRow], texts: str) -> None:
        """Add a block.

        Args:
            rows: Its rows.
            texts: Digest of all texts up to its end.

        Raises:
            OutputError: The disk refuses.
        """
        block = {"rows": list(rows), "texts": texts}
        with writing(self.path):
            self._file.write(json.dumps(block, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        self.rows, self.texts = self.rows + len(rows), texts

    def blocks(self) -> Iterator[list[OutputRow]]:
        """Yield the rows of each block; nothing may be appended meanwhile."""
        self._file.seek(0)
        self._file.readline()
        for line in self._file:
            yield json.loads(line)["rows"]

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{self.path}: another process writes to it; wait for it, or give another --output"
            ) from None
        except OSError:
            return  # a file system without locks

    def _begin(self, identity: dict[str, Any]) -> None:
        self._file.seek(0)
        head = self._file.readline()
        if not head.endswith(b"\n"):  # new, or cut off before anything was predicted
            self._file.truncate(0)
            self._file.seek(0)
            plain = {"format": _FORMAT, "of": identity}
            self._file.write(json.dumps(plain, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            return
        self._require_same(head, identity)
        end = self._file.tell()
        for line in self._file:
            block = _block(line, self.rows + 1)
            if block is None:
                break
            self.rows, self.texts = self.rows + len(block["rows"]), block["texts"]
            end += len(line)
        self._file.truncate(end)
        self._file.seek(end)

    def _require_same(self, head: bytes, identity: dict[str, Any]) -> None:
        try:
            found = json.loads(head)
            saved = dict(found["of"])
            known = found["format"] == _FORMAT
        except (ValueError, LookupError, TypeError):
            known, saved = False, {}
        if not known:
            raise OutputError(
                f"{self.path} is not a journal of this version of plora-cl predict; move it away, "
                "or replace it with --overwrite"
            )
        for name, value in identity.items():
            if saved.get(name) != value:
                raise OutputError(
                    f"{self.path} holds unfinished predictions with {name} "
                    f"{_shown(saved.get(name))}, and this command has {_shown(value)}; continue "
                    "with the same, or start anew with --overwrite"
                )


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _block(line: bytes, first: int) -> dict[str, Any] | None:
    """Return the block in a line; None where it was cut off or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        block: dict[str, Any] = json.loads(line)
        numbers = [row["row"] for row in block["rows"]]
        intact = numbers == list(range(first, first + len(numbers))) and "texts" in block
    except (ValueError, LookupError, TypeError):
        return None
    return block if intact else None
