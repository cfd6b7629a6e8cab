"""Batches of several tasks in equal shares."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import torch

from plora_cl.data.batches import Batch
from plora_cl.data.mixture import MixtureStream

SIZES = (3, 20, 11)
BATCH = 4
SHARE = 3  # one, five and three batches: three on average


class Rows:
    """A split whose batches tell which rows they are made of."""

    def __init__(self, task: int, size: int) -> None:
        self._task, self._size = task, size

    def __len__(self) -> int:
        return self._size

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        found = torch.from_numpy(rows.copy())
        return Batch(found, found, found, self._task)


def mixture(*sizes: int, seed: int = 1) -> MixtureStream:
    splits = [Rows(task, size) for task, size in enumerate(sizes)]
    return MixtureStream(splits, batch_size=BATCH, seed=seed)


def epoch_of(stream: MixtureStream, epoch: int) -> list[tuple[int, list[int]]]:
    batches = [stream.at(epoch, batch) for batch in range(len(stream))]
    return [(batch.task, batch.input_ids.tolist()) for batch in batches]


def rows_of(stream: MixtureStream, task: int, epochs: int) -> list[int]:
    batches = itertools.chain.from_iterable(epoch_of(stream, epoch) for epoch in range(epochs))
    return [row for of, rows in batches if of == task for row in rows]


def test_every_task_gives_the_same_number_of_batches_to_every_epoch() -> None:
    stream = mixture(*SIZES)
    assert len(stream) == SHARE * len(SIZES)
    for epoch in range(4):
        shares = Counter(task for task, _ in epoch_of(stream, epoch))
        assert shares == dict.fromkeys(range(len(SIZES)), SHARE)


def test_a_share_that_is_no_whole_number_is_rounded_up() -> None:
    assert len(mixture(4, 8)) == 2 * 2
    assert len(mixture(4, 4, 8)) == 3 * 2
    assert len(mixture(1)) == 1


@pytest.mark.parametrize("task", range(3))
def test_each_pass_over_a_task_takes_every_example_once(task: int) -> None:
    size = SIZES[task]
    seen = rows_of(mixture(*SIZES), task, 5)
    passes = [tuple(seen[first : first + size]) for first in range(0, len(seen), size)]
    assert len(passes) >= 3
    assert all(sorted(rows) == list(range(size)) for rows in passes[:-1])
    assert len(set(passes[-1])) == len(passes[-1])
    if size > BATCH:
        assert len(set(passes[:-1])) == len(passes) - 1


def test_the_order_of_the_tasks_is_another_one_in_each_epoch() -> None:
    stream = mixture(*SIZES)
    orders = {tuple(task for task, _ in epoch_of(stream, epoch)) for epoch in range(5)}
    assert len(orders) == 5
    assert tuple(sorted(next(iter(orders)))) not in orders


def test_all_follows_from_the_seed_alone_and_draws_nothing() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [epoch_of(mixture(*SIZES), epoch) for epoch in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert [epoch_of(mixture(*SIZES), epoch) for epoch in range(3)] == first
    assert [epoch_of(mixture(*SIZES, seed=2), epoch) for epoch in range(3)] != first


def test_any_batch_is_found_without_those_before_it() -> None:
    stream = mixture(*SIZES)
    expected = {
        (epoch, batch): found
        for epoch in range(4)
        for batch, found in enumerate(epoch_of(stream, epoch))
    }
    jumps = list(expected)
    np.random.default_rng(0).shuffle(jumps)
    for epoch, batch in jumps:
        for asked in (stream, mixture(*SIZES)):
            found = asked.at(epoch, batch)
            assert (found.task, found.input_ids.tolist()) == expected[epoch, batch]


@pytest.mark.parametrize("batch", [-1, SHARE * len(SIZES)])
def test_a_batch_beyond_the_epoch_is_an_error(batch: int) -> None:
    with pytest.raises(IndexError, match=f"batch {batch} of an epoch that has 9 batches"):
        mixture(*SIZES).at(0, batch)
