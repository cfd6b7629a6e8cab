"""Small tasks and the tokenizer that reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import BertTokenizer, PreTrainedTokenizerBase

Rows = Sequence[tuple[str, str | int]]
WriteTask = Callable[..., Path]

WORDS = ("red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "flies", "far")


def build_tokenizer(folder: Path, words: Sequence[str]) -> PreTrainedTokenizerBase:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary), encoding="utf-8")
    return BertTokenizer.from_pretrained(folder)


def write_split(path: Path, rows: Rows) -> None:
    if path.suffix == ".jsonl":
        lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    else:
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        pq.write_table(pa.table(columns), path)


def numbered(count: int, labels: Sequence[str] = ("cat", "dog"), start: int = 0) -> Rows:
    """Different texts, the labels in turn."""
    return [
        (f"red {labels[n % len(labels)]} runs {'far ' * (n % 7)}{n}", labels[n % len(labels)])
        for n in range(start, start + count)
    ]
