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
        validation: Examples for early stopping and tuning; empty if nothing uses them.
        test: Examples for evaluation.
        digest: SHA-256 over texts, labels, classes and tokenisation of all three splits.
        source: SHA-256 of the source, independent of subsets and tokenizer; see
            `TaskSource.content_digest`.
        duplicates: ``"first/second"`` -> examples of the second split whose text the first also
            has, counted before any subset is taken.
        held_out: Number of training texts held out for validation, before any subset is taken; 0
            if the source has a validation split or nothing uses one.
        kept: Number of the other training texts, before any subset is taken.
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
