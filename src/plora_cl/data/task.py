"""One element of the stream to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from plora_cl.data.split import Split


@dataclass(frozen=True, slots=True)
class Task:
    """A text-classification task, tokenised and ready to train on.

    Attributes:
        index: Zero-based position in the stream.
        name: Unique within the stream.
        classes: Class names in label order, fixed by the training split.
        train: Examples to learn from.
        validation: Examples for early stopping and tuning; none where nothing wants them.
        test: Examples to be measured on.
        digest: SHA-256 over texts, labels, classes and tokenisation of all three splits.
        source: SHA-256 of what the task was read from, before any subset is taken and whatever the
            tokenizer; see `TaskSource.content_digest`.
        duplicates: ``"first/second"`` -> examples of the second split whose text the first also
            has, counted before any subset is taken.
        held_out: Training texts that were held out for validation, counted before any subset is
            taken; 0 where the source has a validation split or nothing wants one.
        kept: Training texts that were not, counted before any subset is taken.
    """

    index: int
    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    digest: str
    source: str
    duplicates: Mapping[str, int] = field(default_factory=dict, compare=False)
    held_out: int = 0
    kept: int = 0

    def require_unchanged(self) -> None:
        """Compare the file that holds all three splits with what it was when it was opened.

        Raises:
            DataError: It changed.
        """
        self.train.require_unchanged()
