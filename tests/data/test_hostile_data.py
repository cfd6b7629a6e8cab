"""Task files and caches that hold anything: rows, or one line that names the file."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import random
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerBase

from data.samples import numbered, write_split
from plora_cl.data.sources import readers
from plora_cl.data.sources.folder import FolderSource
from plora_cl.data.tokens.cache import tokenised
from plora_cl.data.tokens.scan import scan
from plora_cl.errors import DataError


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    (tmp_path / "task").mkdir()
    for split in ("train", "validation", "test"):
        write_split(tmp_path / "task" / f"{split}.jsonl", numbered(20))
    return FolderSource("task", tmp_path / "task")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_bytes_are_rows_or_one_line(source: FolderSource, suffix: str) -> None:
    chance = random.Random(6)
    (source.folder / "train.jsonl").unlink()
    path = source.folder / f"train{suffix}"
    write_split(path, numbered(20))
    honest = path.read_bytes()
    for _ in range(150):
        data = bytearray(honest)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(data))
            data[place : place + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        path.write_bytes(bytes(data[: chance.choice((len(data), chance.randrange(len(data)) + 1))]))
        with suppress(DataError):  # nothing else
            scan(source)


@pytest.mark.parametrize(
    "line",
    ['{"text": "a", "label": ' + "9" * 5000 + "}", '{"text": "a", "label": NaN}', "[" * 50_000,
     '{"text": null, "label": {}}', "7", '{"text": "' + "x" * 2000 + '", "label": "a"}'],
)  # fmt: skip
def test_an_odd_line_is_named(
    source: FolderSource, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_LONGEST_LINE", 60_000 if line[0] == "[" else 1000)
    (source.folder / "train.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"train\.jsonl:1: ") as raised:
        scan(source)
    assert "\n" not in str(raised.value)


def entry_of(source: FolderSource, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Any:
    return tokenised(source, tokenizer, max_length=16, cache_dir=cache, progress=lambda _: None)


@pytest.mark.parametrize(
    "facts",
    [None, "{}", "[]", "null", '{"classes": 3}', '{"digests": 1}', '{"duplicates": 2}',
     '{"digests": {"train": "0"}}', "[" * 9999],
)  # fmt: skip
def test_forged_facts_under_a_matching_name_are_built_again(
    source: FolderSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, facts: str | None
) -> None:
    first = entry_of(source, tokenizer, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/*.arrow")
    if facts is not None and facts[:2] == '{"':
        facts = json.dumps({**first.file.facts, **json.loads(facts)})
    blocks = pa.ipc.open_file(pa.py_buffer(path.read_bytes()))
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, blocks.schema) as writer:
        for number in range(blocks.num_record_batches):
            is_last = facts is not None and number == blocks.num_record_batches - 1
            writer.write_batch(blocks.get_batch(number), {"facts": facts} if is_last else None)
    path.unlink()
    name = hashlib.sha256(sink.getvalue()).hexdigest()
    path.with_stem(name).write_bytes(sink.getvalue())
    again = entry_of(source, tokenizer, tmp_path / "cache")
    assert (again.classes, again.digests) == (first.classes, first.digests)


def test_a_pipe_in_place_of_the_tokens_does_not_block(
    source: FolderSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = entry_of(source, tokenizer, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/*.arrow")
    path.unlink()
    os.mkfifo(path)
    assert entry_of(source, tokenizer, tmp_path / "cache").digests == first.digests


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**31 - 1] * 4, pa.int32()).cast(pa.date32()),
        pa.array([2**63 - 1] * 4, pa.int64()).cast(pa.timestamp("us")),
        pa.array([2**63 - 1] * 4, pa.int64()).cast(pa.duration("s")),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("name", ["text", "label"])
def test_a_time_that_python_cannot_hold_is_named(
    source: FolderSource, name: str, column: pa.Array
) -> None:
    (source.folder / "train.jsonl").unlink()
    path = source.folder / "train.parquet"
    columns = {"text": ["a", "b", "c", "d"], "label": ["x", "y", "x", "y"], name: column}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=rf"^{path}:1: .*strings"):
        scan(source)


def test_labels_of_thousands_of_digits_are_names(source: FolderSource) -> None:
    long = "9" * 5000
    for split in ("train", "validation", "test"):
        rows = [(text, long if label == "cat" else "7") for text, label in numbered(20)]
        write_split(source.folder / f"{split}.jsonl", rows)
    assert scan(source).classes == ("7", long)


def test_errors_are_short_for_any_content(source: FolderSource) -> None:
    train, test = source.folder / "train.jsonl", source.folder / "test.jsonl"
    good = test.read_bytes()
    contents = {
        train: b'{"text": "a", "label": [' + b"1," * 100_000 + b"1]}\n",
        test: b'{"text": "a", "label": "' + b"x" * 100_000 + b'"}\n',
    }
    for path, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(DataError) as raised:
            scan(source)
        assert len(str(raised.value)) < 1000
        path.write_bytes(good)
    train.unlink()
    names = ",".join(f"column{number}" for number in range(100_000))
    (source.folder / "train.csv").write_text(f"{names}\n")
    with pytest.raises(DataError, match="column49 and 99950 more") as raised:
        scan(source)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_giant_text_has_the_tokens_of_its_beginning_and_costs_no_more(
    source: FolderSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, side: str
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.truncation_side = side
    giant = f"cat dog {'red green ' * 200_000}blue bird"
    small = f"cat dog {'red green ' * 2_000}blue bird"
    rows = [(text, label) for text, label in numbered(20)]
    write_split(source.folder / "train.jsonl", [(giant, "cat"), (small, "dog"), *rows])
    read: list[int] = []

    class Counting(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, texts: str | list[str], **options: Any) -> Any:
            read.extend(map(len, [texts] if isinstance(texts, str) else texts))
            return super().__call__(texts, **options)

    tokenizer.__class__ = Counting
    found = tokenised(
        source, tokenizer, max_length=16, cache_dir=tmp_path / "cache", progress=lambda *_: None
    )
    train = found.file.rows_of("train")
    first, second = found.file.tokens(train[:2])
    assert first.tolist() == second.tolist()
    assert len(first) == 16
    assert found.file.texts(train[:1]) == [giant]
    assert max(read) <= 1 << 16


def test_a_text_whose_tokens_begin_late_is_read_further_and_refused_in_the_end(
    source: FolderSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    def entry(spaces: int) -> list[int]:
        late = " " * spaces + "cat dog"
        write_split(source.folder / "train.jsonl", [(late, "cat"), *numbered(20)])
        found = tokenised(
            source, tokenizer, max_length=16, cache_dir=tmp_path, progress=lambda *_: None
        )
        return found.file.tokens(found.file.rows_of("train")[:1])[0].tolist()

    assert entry(500_000) == entry(1)
    message = (
        rf"train\.jsonl:1: a text of {(1 << 20) + 7} characters, and the tokenizer finds too few"
    )
    with pytest.raises(DataError, match=message):
        entry(1 << 20)


def test_what_blocks_take_is_bounded_by_their_characters(
    source: FolderSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    long = pa.array(["red cat " * 250_000])
    entries = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), long)
    (source.folder / "train.jsonl").unlink()
    columns = {"text": entries, "label": ["cat", "dog"] * 32}
    pq.write_table(pa.table(columns), source.folder / "train.parquet")
    tracemalloc.start()
    try:
        tokenised(source, tokenizer, max_length=8, cache_dir=tmp_path, progress=lambda *_: None)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20  # and the texts 128 MB
    finally:
        tracemalloc.stop()
