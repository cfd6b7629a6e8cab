"""What is moved aside stays what it was, whatever becomes of the checkpoint of its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checkpoint.test_branches import active, aside, at, branch_off, entry, save
from plora_cl.checkpoint.store.branches import line_of
from plora_cl.checkpoint.store.pins import is_pinned, pin
from plora_cl.checkpoint.store.retiring import retire
from plora_cl.checkpoint.store.store import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints")
    for batch in (1, 2):
        save(store, batch, f"old {batch}")
    return store


@pytest.mark.fault
def test_a_pinned_checkpoint_stays_when_the_branch_that_left_it_is_damaged(
    store: CheckpointStore,
) -> None:
    pin(store, entry(store, at(2)))
    branch_off(store, 2, "new 2")
    entry(store, at(2)).path.write_bytes(b"damaged")
    retire(store)
    save(store, 2, "again 2")
    retire(store)
    kept = entry(store, f"{at(2)}.branch0")
    assert (aside(store), active(store)) == (["old 2"], ["old 1", "again 2"])
    assert is_pinned(store, kept)
    branch_off(store, 2, "newer 2")
    assert (sorted(aside(store)), active(store)) == (["again 2", "old 2"], ["old 1", "newer 2"])
    assert is_pinned(store, kept)
    assert line_of(store).abandoned == []


@pytest.mark.fault
def test_the_pin_of_a_second_name_goes_to_the_first_one(store: CheckpointStore) -> None:
    live, twin = entry(store, at(2)), entry(store, f"{at(2)}.branch0")
    os.link(live.path, twin.path)  # as a process leaves it that was killed before its commit
    pin(store, twin)
    retire(store)
    assert (aside(store), active(store)) == ([], ["old 1", "old 2"])
    assert is_pinned(store, live)
    assert not is_pinned(store, twin)
