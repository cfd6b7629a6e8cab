"""Predicts a file, to a file or to a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from plora_cl.checkpoint.disk.filesystem import Filesystem, partial_path
from plora_cl.errors import DataError, OutputError
from plora_cl.inference.files.journal import Journal, TextsDigest, journal_path, writing
from plora_cl.inference.files.outputs import FILES, SCHEMA, OutputRow, Write
from plora_cl.inference.files.rows import InputFile, InputRow, blocks

if TYPE_CHECKING:
    from plora_cl.inference.experiment import Experiment
    from plora_cl.inference.predictions import Prediction

_BATCHES_AT_ONCE = 16


class FileProgress(NamedTuple):
    """How far a file is predicted.

    Attributes:
        rows: Rows done, those of an interrupted run included.
        resumed: Rows that were done when this run began.
        part: Of the input that was read, in [0, 1]; None where its size is not known.
    """

    rows: int
    resumed: int
    part: float | None


OnProgress: TypeAlias = Callable[[FileProgress], object]


@dataclass(slots=True)
class Outcome:
    """What became of the rows.

    Attributes:
        rows: Number of all rows.
        doubtful: Rows whose task was inferred with doubt.
        without: Rows that have no prediction.
        first_problem: Why the first of these has none; None without any.
    """

    rows: int = 0
    doubtful: int = 0
    without: int = 0
    first_problem: str | None = None

    def count(self, rows: Sequence[OutputRow]) -> None:
        """Add rows of the output."""
        self.rows += len(rows)
        self.doubtful += sum(row["abstained"] is True for row in rows)
        problems = [row["problem"] for row in rows if row["problem"] is not None]
        self.without += len(problems)
        self.first_problem = self.first_problem or next(iter(problems), None)


class FileJob:
    """Predicts rows block by block, in bounded memory.

    Args:
        experiment: What predicts.
        task: The task of all texts; None lets the router infer it.
        batch_size: Texts in a forward pass.
        progress: Told after each block.
    """

    def __init__(
        self, experiment: Experiment, *, task: str | None, batch_size: int, progress: OnProgress
    ) -> None:
        self._experiment, self._task, self._batch_size = experiment, task, batch_size
        self._progress = progress

    def to_stream(self, source: InputFile, write: Write) -> Outcome:
        """Predict all rows of ``source``, and pass them to ``write`` block by block.

        Raises:
            DataError: The input cannot be read.
            ModelError: A logit is not finite.
        """
        outcome = Outcome()
        for block in self._blocks(source.rows()):
            rows = self._predicted(block)
            write(rows)
            outcome.count(rows)
            self._progress(FileProgress(outcome.rows, 0, source.done))
        return outcome

    def to_file(
        self, source: InputFile, output: Path, identity: Mapping[str, Any], *, overwrite: bool
    ) -> Outcome:
        """Predict all rows of ``source`` into a file that appears when it is complete.

        An interrupted call leaves a journal beside it, and the same call continues from there: the
        output gets the bytes that an uninterrupted call would have written.

        Args:
            source: The input.
            output: A new file of a type in `FILES`.
            identity: What the predictions depend on, apart from the input.
            overwrite: Start anew, and replace the output.

        Raises:
            OutputError: The output exists, or is being written, or its journal is that of other
                predictions.
            DataError: The input cannot be read, or is not the one of the journal.
            ModelError: A logit is not finite.
        """
        with Journal(journal_path(output), identity, anew=overwrite) as journal:
            if not overwrite:
                require_absent(output)  # under the lock: another process may just have ended
            rows, digest = source.rows(), TextsDigest()
            self._skip(rows, digest, journal)
            resumed = journal.rows
            for block in self._blocks(rows):
                for row in block:
                    digest.update(row)
                journal.append(self._predicted(block), digest.hexdigest())
                self._progress(FileProgress(journal.rows, resumed, source.done))
            outcome = _write_output(journal, output)
            journal.remove()
        return outcome

    def _blocks(self, rows: Iterator[InputRow]) -> Iterator[list[InputRow]]:
        return blocks(rows, _BATCHES_AT_ONCE * self._batch_size)

    def _skip(self, rows: Iterator[InputRow], digest: TextsDigest, journal: Journal) -> None:
        for _ in range(journal.rows):
            row = next(rows, None)
            if row is not None:
                digest.update(row)
        if journal.rows and digest.hexdigest() != journal.texts:
            raise DataError(
                f"{journal.path} holds predictions of another input: its first {journal.rows} "
                "texts are others. Give the same input again, or start anew with --overwrite"
            )

    def _predicted(self, block: Sequence[InputRow]) -> list[OutputRow]:
        readable = [row for row in block if row.problem is None]
        try:
            found: list[Prediction | str] = [*self._predict([row.text for row in readable])]
        except DataError:  # of one of the texts; the others are predicted
            found = [self._alone(row) for row in readable]
        by_number = {row.number: one for row, one in zip(readable, found, strict=True)}
        return [_output(row, by_number.get(row.number, row.problem)) for row in block]

    def _predict(self, texts: list[str]) -> Sequence[Prediction]:
        return self._experiment.predict(texts, self._task, batch_size=self._batch_size)

    def _alone(self, row: InputRow) -> Prediction | str:
        try:
            return self._predict([row.text])[0]
        except DataError as error:
            return f"row {row.number}: {error}"


def require_absent(output: Path) -> None:
    """Refuse an output that exists.

    Raises:
        OutputError: It does.
    """
    if output.exists():
        raise OutputError(f"{output} exists; replace it with --overwrite, or give another --output")


def _output(row: InputRow, found: Prediction | str | None) -> OutputRow:
    known: dict[str, Any] = {"row": row.number}
    known |= {"problem": found} if found is None or isinstance(found, str) else found.to_plain()
    return {name: known.get(name) for name in SCHEMA.names}


def _write_output(journal: Journal, output: Path) -> Outcome:
    """Write the rows of a complete journal to ``output``, all or nothing."""
    outcome, new = Outcome(), partial_path(output)
    disk = Filesystem()
    try:
        with writing(output):
            with FILES[output.suffix](new) as write:
                for rows in journal.blocks():
                    write(rows)
                    outcome.count(rows)
            with new.open("rb") as file:
                os.fsync(file.fileno())
            disk.rename(new, output)
            disk.sync_directory(output.parent)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    return outcome
