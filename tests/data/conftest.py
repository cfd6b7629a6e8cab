from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from data.samples import WORDS, Rows, WriteTask, build_tokenizer, numbered, write_split
from plora_cl.data.split import Split
from plora_cl.data.tokens.token_file import TokenFile, TokenFileWriter


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"), WORDS)


@pytest.fixture
def other_tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    folder = tmp_path / "other-tokenizer"
    folder.mkdir()
    return build_tokenizer(folder, WORDS[::-1])


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Writes a folder with the given splits and returns it."""

    def write(splits: Mapping[str, Rows], name: str = "animals", suffix: str = ".jsonl") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for split, rows in splits.items():
            write_split(folder / f"{split}{suffix}", rows)
        return folder

    return write


@pytest.fixture
def animals() -> dict[str, Rows]:
    """Three splits without a text in common: 40, 10 and 12 rows of two classes."""
    return {
        "train": numbered(40),
        "validation": numbered(10, start=100),
        "test": numbered(12, start=200),
    }


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., Split]:
    """Writes token lists and their labels to a file and opens it as a split."""

    def make(input_ids: Sequence[Sequence[int]], labels: Sequence[int], block: int = 3) -> Split:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.arrow"
        with TokenFileWriter(path) as writer:
            for first in range(0, len(labels), block):
                rows = slice(first, first + block)
                texts = [str(ids) for ids in input_ids[rows]]
                writer.append("train", input_ids[rows], labels[rows], texts)
        return Split(TokenFile(path), task=5, pad_token_id=9)

    return make


@pytest.fixture
def ragged(make_split: Callable[..., Split]) -> Split:
    """23 rows of 1 to 8 tokens, three classes."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 9, 23).tolist()
    ids = [generator.integers(10, 99, length).tolist() for length in lengths]
    return make_split(ids, generator.integers(0, 3, 23).tolist())
