"""Room for the next saves, and a bound on what checkpoints keep."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint.samples import sealed
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.store.pins import pin
from plora_cl.checkpoint.store.space import keep_within, kept_bytes, shortage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore


def save(
    store: CheckpointStore, batch: int, *, task: int = 0, content: bytes = b"base"
) -> CheckpointEntry:
    objects = {"base": store.objects.put(content)}
    return store.commit(checkpoint_name(task, 0, batch), sealed(task=task, objects=objects))


def batches(store: CheckpointStore) -> list[tuple[int, int]]:
    return [(entry.position.task, entry.position.batch) for entry in store.entries()]


def disk_with(free: int, asked: list[Path]) -> Callable[[Path], int]:
    def free_bytes(path: Path) -> int:
        asked.append(path)
        return free

    return free_bytes


def test_a_disk_too_full_for_the_next_saves_is_named_with_the_bytes(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run" / "checkpoints")

    def line(free: int, *, task: int = 0) -> str | None:
        asked: list[Path] = []
        found = shortage(
            store,
            task=task,
            checkpoint_bytes=100,
            keep_last=2,
            free_bytes=disk_with(free, asked),
        )
        assert asked[0].exists()
        return found

    assert line(300) is None
    message = line(299)
    assert message is not None
    assert message.startswith(f"{store.directory}: 299 bytes are free and the next saves need 300")
    assert list(tmp_path.iterdir()) == []
    for batch in range(3):
        save(store, batch)
    assert line(100) is None
    assert line(99) is not None
    assert line(299, task=1) is not None


def test_a_real_disk_has_room_for_one_byte_and_not_for_an_exbibyte(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert shortage(store, task=0, checkpoint_bytes=1, keep_last=1) is None
    assert shortage(store, task=0, checkpoint_bytes=1 << 60, keep_last=1) is not None


def test_within_the_budget_nothing_goes(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    newest = save(store, 2)
    assert kept_bytes(store) == sum(p.stat().st_size for p in tmp_path.rglob("*.*"))
    assert keep_within(store, newest, kept_bytes(store)) == []
    assert batches(store) == [(0, 1), (0, 2)]


def test_the_oldest_of_the_task_in_training_go_first_and_no_more_than_needed(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 9, task=0)
    save(store, 1, task=1, content=b"unique" * 100)
    for batch in (2, 3):
        save(store, batch, task=1)
    newest = save(store, 4, task=1)
    save(store, 9, task=1)  # ahead of the newest
    gone = keep_within(store, newest, kept_bytes(store) - 1)
    assert [entry.position.batch for entry in gone] == [1]
    assert batches(store) == [(0, 9), (1, 2), (1, 3), (1, 4), (1, 9)]
    assert len(list((tmp_path / "objects").iterdir())) == 1  # what only that one referred to
    pin(store, store.entries()[1])
    gone = keep_within(store, newest, kept_bytes(store) - 1)
    assert [entry.position.batch for entry in gone] == [3]


def test_a_budget_that_cannot_be_met_is_a_warning_and_the_newest_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    old = save(store, 1)
    newest = save(store, 2)
    with caplog.at_level(logging.WARNING):
        assert keep_within(store, newest, 10) == [old]
    assert "the disk budget is 10" in caplog.text
    assert str(newest.path.stat().st_size + len(b"base")) in caplog.text
    assert batches(store) == [(0, 2)]


def test_a_damaged_checkpoint_does_not_make_objects_count_for_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = save(store, 1)
    second = save(store, 2)
    newest = save(store, 3)
    second.path.write_bytes(b"damaged")
    budget = kept_bytes(store) - 1
    assert keep_within(store, newest, budget) == [first]
    assert kept_bytes(store) <= budget
    assert batches(store) == [(0, 2), (0, 3)]
    assert store.objects.get(ObjectRef.of(b"base")) == b"base"
