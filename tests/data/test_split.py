from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from plora_cl.data.batches import BatchStream
from plora_cl.data.split import Split
from plora_cl.data.tokens.token_file import TokenFile, TokenFileWriter

MakeSplit = Callable[..., Split]


def test_a_batch_is_padded_to_its_longest_row_with_the_pad_id(make_split: MakeSplit) -> None:
    split = make_split([[11, 12, 13, 14, 15], [21], [31, 32, 33]], [2, 0, 1])
    batch = split.batch(np.array([2, 1]))
    assert batch.input_ids.dtype == batch.attention_mask.dtype == batch.labels.dtype == torch.int64
    assert batch.input_ids.tolist() == [[31, 32, 33], [21, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [1, 0]
    assert batch.task == 5


def test_rows_are_found_in_every_block_of_the_file(make_split: MakeSplit) -> None:
    ids = [[n] * (n % 4 + 1) for n in range(20)]
    for block in (1, 2, 7, 20):
        split = make_split(ids, list(range(20)), block=block)
        rows = np.array([19, 0, 7, 6, 13, 7])
        batch = split.batch(rows)
        assert batch.labels.tolist() == rows.tolist()
        found = [
            line[mask.bool()].tolist()
            for line, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
        ]
        assert found == [ids[row] for row in rows]


def test_a_batch_depends_on_nothing_but_the_rows_asked_for(ragged: Split) -> None:
    rows = np.array([4, 20, 4, 0])
    first = ragged.batch(rows)
    first.input_ids.zero_()
    first.labels.zero_()
    before = ragged.batch(rows)
    list(ragged.in_order(4))
    ragged.batch(np.array([1]))
    after = ragged.batch(rows)
    for left, right in zip(before[:3], after[:3], strict=True):
        assert torch.equal(left, right)
    assert before.input_ids.any()


def test_in_order_yields_every_row_once_shortest_first_and_the_same_way_each_time(
    ragged: Split,
) -> None:
    batches = list(ragged.in_order(4))
    lengths = torch.cat([batch.attention_mask.sum(1) for batch in batches])
    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert torch.equal(lengths, lengths.sort().values)
    order = sorted(range(23), key=lambda row: (ragged.lengths[row], row))
    assert torch.cat([batch.labels for batch in batches]).tolist() == ragged.labels[order].tolist()
    for left, right in zip(batches, ragged.in_order(4), strict=True):
        assert torch.equal(left.input_ids, right.input_ids)


@pytest.mark.parametrize("row", [-1, 23])
def test_a_row_outside_the_split_is_refused(ragged: Split, row: int) -> None:
    with pytest.raises(IndexError, match="of a split that has 23"):
        ragged.batch(np.array([0, row]))
    with pytest.raises(IndexError, match="of a split that has 23"):
        ragged.subset(np.array([row]))
    with pytest.raises(IndexError, match="of a split that has 2"):
        ragged.subset(np.array([3, 4])).batch(np.array([2]))


def test_a_subset_of_a_subset_has_the_rows_of_the_whole(ragged: Split) -> None:
    inner = ragged.subset(np.array([20, 3, 11, 7])).subset(np.array([2, 0]))
    assert len(inner) == 2
    assert inner.labels.tolist() == ragged.labels[[11, 20]].tolist()
    expected, found = ragged.batch(np.array([11, 20])), inner.batch(np.array([0, 1]))
    assert torch.equal(expected.input_ids, found.input_ids)


def test_labels_cannot_be_changed_by_a_reader(ragged: Split) -> None:
    for split in (ragged, ragged.subset(np.array([1, 2]))):
        with pytest.raises(ValueError, match="read-only"):
            split.labels[0] = 1


def test_the_digest_depends_on_content_and_not_on_blocks_or_the_way_there(
    make_split: MakeSplit,
) -> None:
    ids, labels = [[1, 2], [3], [4, 5, 6], [7]], [0, 1, 1, 0]
    whole = make_split(ids, labels, block=4)
    assert make_split(ids, labels, block=1).digest == whole.digest
    assert make_split(ids[1:3], labels[1:3]).digest == whole.subset(np.array([1, 2])).digest


def test_the_digest_changes_with_every_part_of_the_content(tmp_path: Path) -> None:
    def digest(
        ids: list[list[int]], labels: list[int], texts: tuple[str, str] = ("one", "two")
    ) -> str:
        path = tmp_path / "x.arrow"
        with TokenFileWriter(path) as writer:
            writer.append("train", ids, labels, texts)
        found = Split(TokenFile(path), task=0, pad_token_id=0).digest
        assert writer.digest("train") == found
        return found

    digests = [
        digest([[1, 2], [3]], [0, 1]),
        digest([[1], [2, 3]], [0, 1]),
        digest([[1, 2], [4]], [0, 1]),
        digest([[1, 2], [3]], [1, 0]),
        digest([[1, 2], [3]], [0, 1], ("one", "three")),
        digest([[3], [1, 2]], [1, 0], ("two", "one")),
    ]
    assert len(set(digests)) == len(digests)


def test_the_digest_covers_more_rows_than_one_block(make_split: MakeSplit) -> None:
    ids = [[n] for n in range(9000)]
    changed = [*ids[:-1], [0]]
    whole = make_split(ids, [0] * 9000, block=4096)
    assert whole.digest != make_split(changed, [0] * 9000, block=4096).digest
    assert whole.digest == make_split(ids, [0] * 9000, block=1000).digest


def test_an_unfinished_file_is_not_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"

    def interrupted() -> None:
        with TokenFileWriter(path) as writer:
            writer.append("train", [[1]], [0], ["one"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(pa.ArrowInvalid):
        TokenFile(path)


def test_a_stream_of_batches_draws_every_row_once_an_epoch(ragged: Split) -> None:
    stream = BatchStream(ragged, task=5, batch_size=4, seed=1)
    drawn = torch.cat([stream.at(0, batch).labels for batch in range(len(stream))])
    assert sorted(drawn.tolist()) == sorted(ragged.labels.tolist())
