"""A new run takes the place of an earlier one at one instant, wherever it is stopped."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint.samples import sealed
from checkpoint.simulated_disk import Image, KilledError, SimulatedDisk, kill_after, nothing
from plora_cl.checkpoint.disk.filesystem import is_partial, write_durably
from plora_cl.checkpoint.store.outgoing import LIST
from plora_cl.checkpoint.store.pins import pin, pinned
from plora_cl.checkpoint.store.replacement import complete, recover, set_aside
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CorruptCheckpointError, ExperimentExistsError

RUN = Path("/experiments/run")
FILES = ("config.yaml", "lineage.json", "results/final_results.json", "results/run_log.jsonl")
OLD = ["checkpoint_task0_epoch0_batch9.pt", "checkpoint_task1_epoch0_batch4.pt"]
NEW = "checkpoint_task0_epoch0_batch9.pt"  # under a name that the earlier run has as well


class LostRunError(Exception):
    """Neither the earlier run nor the new one is there, or something of both is."""


def store_on(disk: SimulatedDisk) -> CheckpointStore:
    return CheckpointStore(RUN / "checkpoints", disk)


def save(store: CheckpointStore, name: str, run: str) -> CheckpointEntry:
    objects = {kind: store.objects.put(kind.encode()) for kind in ("shared", run)}
    return store.commit(name, sealed(note=run, objects=objects))


def with_earlier_run() -> SimulatedDisk:
    disk = SimulatedDisk()
    for name in FILES:
        write_durably(disk, RUN / name, f"old {name}".encode())
    for name in OLD:
        save(store_on(disk), name, "old")
    return disk


def begin(disk: SimulatedDisk) -> None:
    set_aside(store_on(disk))
    for name in ("config.yaml", "results/run_log.jsonl"):
        write_durably(disk, RUN / name, f"new {name}".encode())


def stand(disk: SimulatedDisk) -> None:
    store = store_on(disk)
    complete(store, save(store, NEW, "new"))


def which_run(disk: SimulatedDisk) -> str:
    """Return which of the two runs is there, the whole of it and nothing else."""
    store = store_on(disk)
    notes = [str(store.verify(entry).settings["note"]) for entry in store.entries()]
    for entry in store.entries():
        for ref in store.manifest(entry).objects.values():
            store.objects.verify(ref)
    beside = {
        str(path.relative_to(RUN)): file.data.decode()
        for path, file in disk.names_now.items()
        if not path.is_relative_to(RUN / "checkpoints") and not is_partial(path.name)
    }
    both = {run: {name: f"{run} {name}" for name in FILES} for run in ("old", "new")}
    if notes == ["old"] * len(OLD) and beside == both["old"]:
        return "old"
    if notes == ["new"] and beside.items() <= both["new"].items():
        return "new"
    raise LostRunError(f"{notes}, {beside}")


def recovered(image: Image) -> str:
    disk = SimulatedDisk.holding(image)
    recover(store_on(disk))
    return which_run(disk)


def test_the_earlier_run_goes_when_the_new_one_stands_and_not_before() -> None:
    disk = with_earlier_run()
    begin(disk)
    store = store_on(disk)
    assert [entry.path.name for entry in store.entries()] == OLD
    stand(disk)
    assert which_run(disk) == "new"
    assert not recover(store)
    assert which_run(disk) == "new"


def test_what_stood_on_nothing_is_undone() -> None:
    disk = with_earlier_run()
    begin(disk)
    assert recover(store_on(disk))
    assert which_run(disk) == "old"
    assert not recover(store_on(disk))


def test_results_are_enough_to_stand_on() -> None:
    disk = with_earlier_run()
    begin(disk)
    write_durably(disk, RUN / "results/final_results.json", b"new results/final_results.json")
    assert not recover(store_on(disk))
    assert store_on(disk).entries() == []
    assert not [path for path in disk.names_now if path.suffix == ".replaced"]


@pytest.mark.fault
def test_a_power_cut_at_any_instant_leaves_one_run_and_never_half_of_two() -> None:
    disk = with_earlier_run()
    seen: dict[frozenset[tuple[Path, bytes]], str] = {}
    standing = False

    def check(disk: SimulatedDisk) -> None:
        for image in disk.after_power_cut():
            state = frozenset(image.items())
            if state not in seen:
                seen[state] = recovered(image)
            assert not standing or seen[state] == "new"

    disk.before_operation = check
    begin(disk)
    store = store_on(disk)
    entry = save(store, NEW, "new")
    standing = True
    complete(store, entry)
    check(disk)
    assert set(seen.values()) == {"old", "new"}
    assert len(seen) > 40


@pytest.mark.fault
def test_a_kill_at_any_operation_and_another_during_recovery_leave_one_run() -> None:
    def killed(disk: SimulatedDisk, after: int, work: Callable[[SimulatedDisk], object]) -> bool:
        disk.before_operation = kill_after(after)
        try:
            work(disk)
        except KilledError:
            return True
        else:
            return False
        finally:
            disk.before_operation = nothing

    def whole(disk: SimulatedDisk) -> None:
        begin(disk)
        stand(disk)

    found: set[str] = set()
    for first in range(200):
        for second in range(50):
            disk = with_earlier_run()
            if not killed(disk, first, whole):
                assert found == {"old", "new"}
                return
            stopped_again = killed(disk, second, lambda disk: recover(store_on(disk)))
            recover(store_on(disk))
            found.add(which_run(disk))
            if not stopped_again:
                break
    raise AssertionError("it never ends")


def test_a_list_that_is_not_flushed_is_caught() -> None:
    disk = with_earlier_run()
    disk.flushes_names = lambda folder: folder != RUN
    begin(disk)
    store = store_on(disk)
    entry = save(store, NEW, "new")
    assert entry in store.entries()

    def try_all() -> None:
        for image in disk.after_power_cut():
            recovered(image)

    with pytest.raises(LostRunError):
        try_all()


def test_pinned_checkpoints_are_named_and_nothing_changes() -> None:
    disk = with_earlier_run()
    store = store_on(disk)
    pin(store, store.entries()[1])
    before = dict(disk.names_now)
    with pytest.raises(
        ExperimentExistsError, match=rf"{OLD[1]}; plora-cl checkpoints unpin .*run@"
    ):
        set_aside(store)
    assert disk.names_now == before


def test_what_is_going_to_go_cannot_be_pinned_and_what_stays_can() -> None:
    disk = with_earlier_run()
    store = store_on(disk)
    begin(disk)
    with pytest.raises(CheckpointError, match="was not pinned: the first checkpoint of the run"):
        pin(store, store.entries()[0])
    new = save(store, NEW, "new")
    pin(store, new)
    complete(store, new)
    assert which_run_of_pins(store) == [NEW]


def which_run_of_pins(store: CheckpointStore) -> list[str]:
    positions = pinned(store)
    return [entry.path.name for entry in store.entries() if entry.position in positions]


def test_a_disk_that_refuses_keeps_the_earlier_run() -> None:
    disk = with_earlier_run()

    def refuse(_: SimulatedDisk) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    disk.before_operation = refuse
    with pytest.raises(CheckpointError, match="Read-only"):
        set_aside(store_on(disk))
    disk.before_operation = nothing
    recover(store_on(disk))
    assert which_run(disk) == "old"


def test_an_unreadable_list_removes_nothing_and_says_what_to_do() -> None:
    disk = with_earlier_run()
    begin(disk)
    for text in (b"{", b"[]", b"{}"):
        write_durably(disk, RUN / LIST, text)
        with pytest.raises(CorruptCheckpointError, match=r"replaced\.json is unreadable: remove"):
            recover(store_on(disk))
    assert len(store_on(disk).entries()) == len(OLD)
