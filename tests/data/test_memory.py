from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from plora_cl.data.sources.declaration import parse_task
from plora_cl.data.split import Split
from plora_cl.data.tokens.cache import tokenised
from plora_cl.data.tokens.token_file import SCHEMA, TokenFile

MIB = 2**20


def _anonymous_bytes() -> int:
    """Memory of this process that no file backs: what a memory map does not count in."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = next(line for line in lines if line.startswith("RssAnon")).split()[1]
    return int(kib) * 1024


def test_a_large_split_is_read_from_disk_and_not_held_in_memory(tmp_path: Path) -> None:
    path, rows, tokens, block = tmp_path / "large.arrow", 400_000, 128, 10_000
    ids = pa.FixedSizeListArray.from_arrays(np.arange(block * tokens, dtype=np.int32), tokens)
    columns = [[0] * block, ids.cast(SCHEMA.field("input_ids").type), [1] * block]
    columns += [[bytes(16)] * block, ["red cat " * 16] * block]
    filled = pa.record_batch(columns, schema=SCHEMA)
    with pa.ipc.new_file(path, SCHEMA) as writer:
        for _ in range(rows // block):
            writer.write_batch(filled)
        writer.write_batch(filled.slice(0, 0), {"facts": "{}"})
    del ids, columns, filled
    assert path.stat().st_size > 200 * MIB

    before, arrow_before = _anonymous_bytes(), pa.total_allocated_bytes()
    split = Split(TokenFile(path), task=0, pad_token_id=0)
    generator = np.random.default_rng(0)
    for _ in range(200):
        split.batch(generator.integers(0, rows, 32))
    for number, _ in enumerate(split.in_order(256)):
        if number == 100:
            break
    half = split.subset(np.arange(0, rows, 2))
    assert len(half.batch(np.arange(10)).labels) == 10
    assert _anonymous_bytes() - before < 40 * MIB
    assert pa.total_allocated_bytes() - arrow_before < MIB


def _peak(source: Path, tokenizer: PreTrainedTokenizerBase, cache: Path) -> int:
    tracemalloc.start()
    try:
        tokenised(
            parse_task(source),
            tokenizer,
            max_length=128,
            cache_dir=cache,
            progress=lambda _: None,
        )
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_tokenising_keeps_neither_texts_nor_tokens_in_memory(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    peaks = []
    for rows in (30, 3_000, 9_000):  # the first pays for what is imported on first use
        folder = tmp_path / str(rows)
        folder.mkdir()
        text = "red cat runs far " * 64
        with (folder / "train.csv").open("w", encoding="utf-8") as file:
            file.write("text,label\n")
            file.writelines(f"{text}{n},{n % 3}\n" for n in range(rows))
        (folder / "test.csv").write_text("text,label\nblue,0\n", encoding="utf-8")
        peaks.append(_peak(folder, tokenizer, tmp_path / "cache"))
    assert (peaks[2] - peaks[1]) / 6_000 < 200  # a row's tokens alone would be 512, its text 1088
