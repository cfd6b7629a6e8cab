from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import re
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier as Meeting
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models
from transformers import BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data.samples import Rows, WriteTask, numbered
from plora_cl.cache_folder import default_cache_dir
from plora_cl.data.sources.base import Row, TaskSource
from plora_cl.data.sources.declaration import parse_task
from plora_cl.data.tokens.cache import TokenisedTask, tokenised
from plora_cl.errors import DataError
from plora_cl.units import Unit


@dataclass
class CountedSource(TaskSource):
    """A source in memory that knows how often its rows were read."""

    splits_of: dict[str, list[Row]]
    name: str = "counted"
    reads: list[str] = field(default_factory=list)

    def splits(self) -> tuple[str, ...]:
        return tuple(self.splits_of)

    def place(self, split: str) -> str:
        return f"memory/{split}"

    def content_digest(self) -> str:
        return json.dumps(self.splits_of)

    def rows(self, split: str) -> Iterator[Row]:
        self.reads.append(split)
        return iter(self.splits_of[split])

    def class_order(self) -> None:
        return None


@pytest.fixture
def source() -> CountedSource:
    def rows(start: int) -> list[Row]:
        return [
            Row(n, text, str(label)) for n, (text, label) in enumerate(numbered(20, start=start))
        ]

    return CountedSource({"train": rows(0), "validation": rows(100), "test": rows(200)})


def open_entry(
    source: TaskSource,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    max_length: int = 16,
) -> TokenisedTask:
    return tokenised(
        source,
        tokenizer,
        max_length=max_length,
        cache_dir=cache_dir,
        progress=lambda _: None,
    )


def test_texts_are_tokenised_once(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = open_entry(source, tokenizer, tmp_path)
    assert source.reads == ["train", "validation", "test"] * 2
    second = open_entry(source, tokenizer, tmp_path)
    assert len(source.reads) == 6
    assert (second.classes, second.digests) == (first.classes, first.digests)


def test_content_tokenizer_and_length_each_have_their_own_entry(
    source: CountedSource,
    tokenizer: PreTrainedTokenizerBase,
    other_tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    open_entry(source, tokenizer, cache)
    open_entry(source, tokenizer, cache, max_length=8)
    open_entry(source, other_tokenizer, cache)
    source.splits_of["test"].pop()
    assert len(open_entry(source, tokenizer, cache).file.rows_of("test")) == 19
    assert len(list(cache.iterdir())) == 4


def test_what_the_tokenizer_was_last_used_for_does_not_matter(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    open_entry(source, tokenizer, tmp_path)
    tokenizer(["red", "red cat"], truncation=True, max_length=3, padding="max_length")
    open_entry(source, tokenizer, tmp_path)
    assert len(source.reads) == 6


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "zero", "remove"])
def test_a_damaged_entry_is_found_and_built_again(
    source: CountedSource,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    expected = open_entry(source, tokenizer, tmp_path).digests
    (path,) = tmp_path.glob("*/*.arrow")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif damage == "remove":
        path.unlink()
    elif damage == "zero":
        path.write_bytes(bytes(len(content)))  # a power cut kept the name and the length
    else:
        os.truncate(path, 0 if damage == "empty" else len(content) - 1)
    with caplog.at_level(logging.WARNING, logger="plora_cl"):
        entry = open_entry(source, tokenizer, tmp_path)
    assert len(source.reads) == 12
    assert entry.digests == expected
    if damage != "remove":
        (record,) = caplog.records
        assert f"{path} is damaged" in record.getMessage()
    open_entry(source, tokenizer, tmp_path)
    assert len(source.reads) == 12


def test_the_tokens_are_those_that_were_compared_with_the_digest(
    source: CountedSource,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = open_entry(source, tokenizer, tmp_path).file
    (file,) = tmp_path.glob("*/*.arrow")
    another = open_entry(source, tokenizer, tmp_path / "other", max_length=3).file.path
    map_file = pa.memory_map

    def map_another(path: str) -> pa.MemoryMappedFile:
        """Map a file that replaced the right one at the last instant."""
        monkeypatch.setattr(pa, "memory_map", map_file)
        another.replace(file)
        return map_file(path)

    monkeypatch.setattr(pa, "memory_map", map_another)
    found = open_entry(source, tokenizer, tmp_path).file
    rows = np.arange(len(expected))
    for one, other in zip(found.tokens(rows), expected.tokens(rows), strict=True):
        assert one.tolist() == other.tolist()
    assert len(source.reads) == 18


def test_a_file_that_changes_after_it_was_opened_is_found_out(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file = open_entry(source, tokenizer, tmp_path).file
    (path,) = tmp_path.glob("*/*.arrow")
    content = path.read_bytes()
    path.with_suffix(".new").write_bytes(content[::-1])
    path.with_suffix(".new").replace(path)  # another file: what is mapped stays
    file.require_unchanged()
    file = open_entry(source, tokenizer, tmp_path).file
    with path.open("r+b") as opened:
        opened.seek(len(content) // 2)
        opened.write(bytes([content[len(content) // 2] ^ 1]))
    with pytest.raises(
        DataError, match=rf"^{re.escape(str(path))} changed while a run read .*[^\n]$"
    ):
        file.require_unchanged()


def test_an_interrupted_build_leaves_nothing_that_counts_as_an_entry(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    def interrupt(unit: Unit) -> None:
        if unit.done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenised(source, tokenizer, max_length=16, cache_dir=tmp_path, progress=interrupt)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "users"]
    open_entry(source, tokenizer, tmp_path)
    assert sorted(path.suffix or path.name for path in folder.iterdir()) == [
        ".arrow",
        "lock",
        "users",
    ]


def test_what_a_killed_build_left_behind_is_removed_a_day_later(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    expected = open_entry(source, tokenizer, tmp_path).digests
    (folder,) = tmp_path.iterdir()
    (entry,) = folder.glob("*.arrow")
    entry.unlink()
    left = folder / "0a1b.tmp"
    left.write_bytes(b"half" * 10_000)
    os.utime(left, (0, 0))
    (folder / "2c3d.tmp").write_bytes(b"half")  # perhaps of a build under way on another machine
    assert open_entry(source, tokenizer, tmp_path).digests == expected
    assert [path.name for path in folder.glob("*.tmp")] == ["2c3d.tmp"]


def test_a_source_that_changes_while_it_is_read_is_refused(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    def change(unit: Unit) -> None:
        source.splits_of["test"][0] = Row(1, "blue", "bird")

    with pytest.raises(DataError, match=r"'counted'.* changed while it was read"):
        tokenised(source, tokenizer, max_length=16, cache_dir=tmp_path, progress=change)
    assert not list(tmp_path.glob("*/*.arrow"))


def test_callers_that_ask_for_the_same_entry_at_once_build_it_once(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    together = Barrier(4)

    def ask() -> dict[str, str]:
        together.wait(30)
        return dict(open_entry(source, tokenizer, tmp_path).digests)

    with ThreadPoolExecutor(4) as pool:
        digests = [future.result(60) for future in [pool.submit(ask) for _ in range(4)]]
    assert digests == [digests[0]] * 4
    assert len(source.reads) == 6


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_serves_several_builders_at_once(
    source: CountedSource,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    together = Barrier(3)

    def build() -> dict[str, str]:
        is_first = True

        def meet(unit: Unit) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                together.wait(60)  # all of them have files open, and none has finished one

        found = tokenised(source, tokenizer, max_length=16, cache_dir=tmp_path, progress=meet)
        return dict(found.digests)

    with ThreadPoolExecutor(3) as pool:
        digests = [future.result(60) for future in [pool.submit(build) for _ in range(3)]]
    (folder,) = tmp_path.iterdir()
    assert not list(folder.glob("*.tmp"))
    reads = len(source.reads)
    assert dict(open_entry(source, tokenizer, tmp_path).digests) == digests[0]
    assert digests == [digests[0]] * 3
    assert len(source.reads) == reads


def _build_in_another_process(folder: Path, cache: Path, vocabulary: Path, meet: Meeting) -> None:
    other = BertTokenizer.from_pretrained(vocabulary)
    meet.wait(60)
    open_entry(parse_task(folder), other, cache)


@pytest.mark.slow
def test_two_processes_that_build_the_same_entry_at_once_both_get_it(
    write_task: WriteTask, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = write_task({"train": numbered(3000), "test": numbered(100, start=5000)})
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    meet = context.Barrier(2)
    process = context.Process(
        target=_build_in_another_process,
        args=(folder, cache, tokenizer.name_or_path, meet),
    )
    process.start()
    meet.wait(60)
    assert len(open_entry(parse_task(folder), tokenizer, cache).file.rows_of("test")) == 100
    process.join(60)
    assert process.exitcode == 0
    (entry,) = cache.iterdir()
    assert len(list(entry.iterdir())) == 2


def test_a_cache_folder_that_cannot_be_written_is_named_with_the_way_out(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.*PLORA_CL_CACHE"):
        open_entry(source, tokenizer, tmp_path / "file")


def test_a_full_disk_is_reported_and_nothing_half_written_stays(
    source: CountedSource, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write to the cache .*PLORA_CL_CACHE"):
            open_entry(source, tokenizer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "users"]
    open_entry(source, tokenizer, tmp_path)


def test_the_default_cache_folder_follows_the_environment() -> None:
    both = {"PLORA_CL_CACHE": "/fast/cache", "XDG_CACHE_HOME": "/xdg"}
    assert default_cache_dir(both) == Path("/fast/cache")
    assert default_cache_dir({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/plora_cl")
    assert default_cache_dir({}) == Path.home() / ".cache" / "plora_cl"


def test_a_text_without_any_token_is_named(
    write_task: WriteTask, animals: dict[str, Rows], tmp_path: Path
) -> None:
    letters = {letter: index for index, letter in enumerate("acdegrnutsf")}
    bare = Tokenizer(models.BPE(letters, merges=[]))  # neither unknown nor special tokens
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]")
    folder = write_task({split: [*rows, ("ooo", "cat")] for split, rows in animals.items()})
    with pytest.raises(DataError, match=r"train\.jsonl:41: the tokenizer finds no token in 'ooo'"):
        open_entry(parse_task(folder), tokenizer, tmp_path / "cache")
