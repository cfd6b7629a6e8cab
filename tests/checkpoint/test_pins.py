from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint.samples import sealed
from checkpoint.simulated_disk import SimulatedDisk
from plora_cl.checkpoint.disk.filesystem import Content, Filesystem
from plora_cl.checkpoint.store.pins import pin, pinned, unpin
from plora_cl.checkpoint.store.replacement import complete, set_aside
from plora_cl.checkpoint.store.retention import collect_garbage, garbage, rotate
from plora_cl.checkpoint.store.space import keep_within
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError

HOME = Path("/experiments/run/checkpoints")


def save(store: CheckpointStore, batch: int, task: int = 0) -> CheckpointEntry:
    name = f"checkpoint_task{task}_epoch0_batch{batch}.pt"
    ref = store.objects.put(f"object {task} {batch}".encode())
    return store.commit(name, sealed(objects={"x": ref}, task=task))


def batches(store: CheckpointStore) -> list[int]:
    return [entry.position.batch for entry in store.entries()]


def test_a_pinned_checkpoint_stays_with_its_objects_until_it_is_unpinned(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    first = save(store, 0)
    pin(CheckpointStore(store.directory), first)
    for batch in range(1, 4):
        rotate(store, save(store, batch), keep_last=1)
    assert batches(store) == [0, 3]
    assert {store.objects.get(r) for r in store.manifest(first).objects.values()} == {b"object 0 0"}
    rotate(store, save(store, 0, task=1), keep_last=1)
    assert first in store.entries()
    assert unpin(store, first)
    rotate(store, save(store, 1, task=1), keep_last=1)
    assert [entry.position.batch for entry in store.entries()] == [3, 1]
    assert not unpin(store, first)


@pytest.mark.parametrize("spared", range(6))
def test_a_pin_changes_nothing_about_the_checkpoints_that_are_not_pinned(
    tmp_path: Path, spared: int
) -> None:
    kept = []
    for home in (tmp_path / "without", tmp_path / "with"):
        store = CheckpointStore(home)
        entries = [save(store, batch) for batch in range(6)]
        if home.name == "with":
            pin(store, entries[spared])
        rotate(store, entries[-1], keep_last=2)
        kept.append(set(batches(store)))
    assert kept[1] == kept[0] | {spared}
    assert kept[0] == {4, 5}


def test_pinning_twice_is_pinning_once(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    entry = save(store, 0)
    pin(store, entry)
    pin(store, entry)
    assert pinned(store) == {entry.position}
    assert unpin(store, entry)
    assert pinned(store) == set()


def test_what_is_not_there_cannot_be_pinned(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    gone = save(store, 0)
    store.delete([gone])
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        pin(store, gone)
    assert pinned(store) == set()


def test_a_pin_of_a_checkpoint_that_was_overwritten_does_not_outlive_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    entry = save(store, 0)
    pin(store, entry)
    store.delete([entry])
    collect_garbage(store)
    assert pinned(store) == set()
    assert garbage(CheckpointStore(tmp_path)) == []


def test_an_acknowledged_pin_survives_a_power_cut_and_so_does_its_end() -> None:
    disk = SimulatedDisk()
    store = CheckpointStore(HOME, disk)
    entry = save(store, 0)
    pin(store, entry)
    for image in disk.after_power_cut():
        assert pinned(CheckpointStore(HOME, SimulatedDisk.holding(image))) == {entry.position}
    unpin(store, entry)
    for image in disk.after_power_cut():
        assert pinned(CheckpointStore(HOME, SimulatedDisk.holding(image))) == set()


class Interrupted(Filesystem):
    """Runs something else in the middle of an operation."""

    def __init__(self, meanwhile: Callable[[Path], None], operation: str) -> None:
        self._meanwhile, self._operation = meanwhile, operation

    def remove(self, path: Path) -> None:
        if self._operation == "remove" and path.suffix == ".pt":
            self._meanwhile(path)
        super().remove(path)

    def write(self, path: Path, data: Content) -> None:
        if self._operation == "write":
            self._meanwhile(path)
        super().write(path, data)


def rotated(store: CheckpointStore, current: CheckpointEntry) -> None:
    rotate(store, current, keep_last=1)


def evicted(store: CheckpointStore, current: CheckpointEntry) -> None:
    keep_within(store, current, 1)


def replaced(store: CheckpointStore, current: CheckpointEntry) -> None:
    set_aside(store)
    complete(store, current)


@pytest.mark.parametrize("remove", [rotated, evicted, replaced])
def test_a_pin_is_not_acknowledged_for_a_checkpoint_that_is_being_removed(
    tmp_path: Path, remove: Callable[[CheckpointStore, CheckpointEntry], None]
) -> None:
    answers: list[str] = []
    threads: list[threading.Thread] = []
    home = tmp_path / "checkpoints"

    def pin_it(path: Path) -> None:
        try:
            pin(CheckpointStore(home), CheckpointEntry.at(path))
        except CheckpointError as error:
            answers.append(type(error).__name__)
        else:
            answers.append("pinned")

    def meanwhile(path: Path) -> None:
        threads.append(threading.Thread(target=pin_it, args=(path,)))
        threads[-1].start()
        threads[-1].join(0.2)

    store = CheckpointStore(home)
    save(store, 0)
    current = save(store, 1)
    remove(CheckpointStore(home, Interrupted(meanwhile, "remove")), current)
    for thread in threads:
        thread.join()
    assert answers == ["CheckpointNotFoundError"]
    assert batches(store) == [1]


def test_eviction_never_waits_for_a_pin_and_makes_up_for_it_later(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first, _, third = (save(store, batch) for batch in range(3))
    removed: list[object] = []

    def meanwhile(_: Path) -> None:
        removed.append(keep_within(store, third, 1))

    pin(CheckpointStore(tmp_path, Interrupted(meanwhile, "write")), first)
    assert removed == [[]]
    assert batches(store) == [0, 1, 2]
    keep_within(store, third, 1)
    assert batches(store) == [0, 2]


def test_a_rotation_never_waits_for_a_pin_and_makes_up_for_it_later(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first, second = save(store, 0), save(store, 1)
    removed: list[object] = []

    def meanwhile(_: Path) -> None:
        removed.append(rotate(store, second, keep_last=1))

    pin(CheckpointStore(tmp_path, Interrupted(meanwhile, "write")), first)
    assert removed == [[]]
    assert batches(store) == [0, 1]
    rotate(store, save(store, 2), keep_last=1)
    assert batches(store) == [0, 2]
