"""A stream of tasks, from the entries of the settings to tokenised splits."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from plora_cl.data.sampling import rows_per_class, stratified_rows
from plora_cl.data.sources.base import SPLITS
from plora_cl.data.sources.declaration import parse_tasks
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.data.tokens.cache import tokenised
from plora_cl.data.tokens.tokenisation import check_tokenizer
from plora_cl.units import Progress

_EVALUATION_SEED = 0
_logger = logging.getLogger(__name__)


def load_tasks(
    entries: Sequence[str | Path | Mapping[str, object]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    max_train_examples: int | None,
    max_eval_examples: int | None,
    seed: int,
    max_train_examples_per_class: int = 0,
    max_validation_examples_per_class: int = 0,
    hold_out: bool = True,
    cache_dir: Path,
    progress: Progress,
) -> list[Task]:
    """Return the tasks of a stream, tokenised once and kept on disk.

    With ``hold_out``, a task without a validation split holds out a tenth of the distinct training
    texts of each class. The seed does not affect which ones.

    Args:
        entries: An entry for each task; see `parse_task`.
        tokenizer: A fast tokenizer with a padding token.
        max_length: Longer texts are cut to this many tokens, special tokens included.
        max_train_examples: Size of a stratified subset of each training split; 0 or None takes
            all.
        max_eval_examples: The same for each validation and each test split.
        max_train_examples_per_class: Examples of each class of each training split; 0 takes all.
        max_validation_examples_per_class: The same for each validation split.
        seed: Chooses the training subsets. Evaluation subsets do not depend on it: runs with
            different seeds are measured on the same examples.
        hold_out: Whether every task needs a validation split.
        cache_dir: Folder of the token cache.
        progress: Receives the finished rows while texts are tokenised.

    Raises:
        DataError: A task cannot be read; the message names file, line or column and the remedy.
    """
    check_tokenizer(tokenizer, max_length)
    sources = parse_tasks(entries)
    for source in sources:
        source.splits()  # a missing task is found before the others are tokenised
    tasks = []
    for index, source in enumerate(sources):
        entry = tokenised(
            source,
            tokenizer,
            max_length=max_length,
            cache_dir=cache_dir,
            progress=progress,
            hold_out=hold_out,
        )
        splits = {
            name: Split(
                entry.file,
                task=index,
                pad_token_id=int(tokenizer.pad_token_id),
                rows=entry.file.rows_of(name),
                digest=entry.digests[name],
            )
            for name in SPLITS
        }
        _report_duplicates(source.name, entry.duplicates, splits)
        train = _limited(splits["train"], max_train_examples, max_train_examples_per_class, seed)
        validation = _limited(
            splits["validation"],
            max_eval_examples,
            max_validation_examples_per_class,
            _EVALUATION_SEED,
        )
        test = _limited(splits["test"], max_eval_examples, 0, _EVALUATION_SEED)
        content = json.dumps([entry.classes, train.digest, validation.digest, test.digest])
        tasks.append(
            Task(
                index=index,
                name=source.name,
                classes=entry.classes,
                train=train,
                validation=validation,
                test=test,
                digest=hashlib.sha256(content.encode()).hexdigest(),
                source=entry.source,
                duplicates=entry.duplicates,
                held_out=0 if "validation" in source.splits() else len(splits["validation"]),
                kept=len(splits["train"]),
            )
        )
    return tasks


def _limited(split: Split, limit: int | None, per_class: int, seed: int) -> Split:
    if not len(split):
        return split
    if per_class and len(rows := rows_per_class(split.labels, per_class, seed)) < len(split):
        split = split.subset(rows)
    if not limit or limit >= len(split):
        return split
    return split.subset(stratified_rows(split.labels, limit, seed))


def _report_duplicates(
    name: str, duplicates: Mapping[str, int], splits: Mapping[str, Split]
) -> None:
    for pair, count in duplicates.items():
        if count:
            first, second = pair.split("/")
            _logger.warning(
                "task %s: %d of %d %s texts also occur in %s, so that scores on %s say less about "
                "new texts; remove them from one of the two",
                *(name, count, len(splits[second]), second, first, second),
            )
