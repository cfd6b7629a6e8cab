"""Which checkpoints are gone on from, at each instant at which a branch is being made."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from checkpoint.samples import sealed
from checkpoint.simulated_disk import Image, KilledError, SimulatedDisk, kill_after, nothing
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory
from plora_cl.checkpoint.store.branches import (
    Continuation,
    continuation,
    line_of,
    newest_that,
    started_afresh,
)
from plora_cl.checkpoint.store.pins import is_pinned, pin, pinned
from plora_cl.checkpoint.store.retention import collect_garbage, garbage, rotate, tidy
from plora_cl.checkpoint.store.retiring import commit, retire
from plora_cl.checkpoint.store.space import keep_within, kept_bytes
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, CorruptCheckpointError

HOME = Path("/experiments/run/checkpoints")
OLD = Trajectory("0" * 64)
CHANGE = {
    "key": "learning_rate",
    "before": "0.1",
    "now": "0.2",
    "impact": "trajectory-changing",
}


class WithoutLinks(SimulatedDisk):
    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")


def at(batch: int) -> str:
    return f"checkpoint_task0_epoch0_batch{batch}.pt"


def save(
    store: CheckpointStore, batch: int, note: str, trajectory: Trajectory = OLD
) -> CheckpointEntry:
    objects = {text: store.objects.put(text.encode()) for text in ("base", f"of {note}")}
    return commit(store, at(batch), sealed(note=note, objects=objects, trajectory=trajectory))


def old_line(disk: Filesystem, *, pins: bool = True) -> CheckpointStore:
    """Return a store with three checkpoints of one trajectory, two of them pinned."""
    store = CheckpointStore(HOME, disk)
    entries = [save(store, batch, f"old {batch}") for batch in (1, 2, 3)]
    for entry in entries[1:] if pins else []:
        pin(store, entry)
    return store


def leave(
    store: CheckpointStore,
    source: CheckpointEntry,
    *changes: dict[str, str],
    by_choice: bool = True,
) -> Continuation:
    return continuation(
        store, source, store.manifest(source), changes, by_choice=by_choice and bool(changes)
    )


def entry(store: CheckpointStore, name: str) -> CheckpointEntry:
    return CheckpointEntry.at(store.directory / name)


def branch_off(store: CheckpointStore, batch: int, note: str) -> None:
    """Make the branch as a run does: its first checkpoint, then what it leaves, then retention."""
    trajectory = leave(store, entry(store, at(batch)), CHANGE).trajectory
    saved = save(store, batch, note, trajectory)
    retire(store)
    rotate(store, saved, keep_last=5)


def note_of(store: CheckpointStore, at: CheckpointEntry) -> str:
    """Return what a checkpoint holds; every byte of it and of its objects is right."""
    store.read(at)
    manifest = store.manifest(at)
    for text, ref in manifest.objects.items():
        assert store.objects.get(ref) == text.encode()
    return str(manifest.settings["note"])


def newest(store: CheckpointStore) -> str | None:
    return newest_that(store, lambda entry: note_of(store, entry))


def active(store: CheckpointStore) -> list[str]:
    return [note_of(store, entry) for entry in line_of(store).entries]


def aside(store: CheckpointStore) -> list[str]:
    return [note_of(store, entry) for entry in store.retired()]


@pytest.fixture
def store() -> CheckpointStore:
    return old_line(SimulatedDisk(), pins=False)


# --- the rule


def test_without_branches_everything_counts(store: CheckpointStore) -> None:
    assert active(store) == ["old 1", "old 2", "old 3"]
    assert line_of(store).head == OLD
    assert retire(store) == []
    empty = CheckpointStore(HOME, SimulatedDisk())
    assert (line_of(empty).head, newest(empty)) == (None, None)


def test_what_lies_ahead_of_a_branch_is_abandoned_at_once_and_retired_later(
    store: CheckpointStore,
) -> None:
    following = leave(store, entry(store, at(2)), CHANGE)
    assert following.is_branch
    save(store, 2, "new 2", following.trajectory)
    assert active(store) == ["old 1", "new 2"]
    assert [name.path.name for name, _ in line_of(store).abandoned] == [at(3)]
    assert [moved.path.name for moved in retire(store)] == [f"{at(3)}.branch0"]
    assert active(store) == ["old 1", "new 2"]
    assert aside(store) == ["old 2", "old 3"]


def test_the_branch_counts_although_the_old_one_is_longer(store: CheckpointStore) -> None:
    branch_off(store, 1, "new 1")
    assert newest(store) == "new 1"
    branch_off(store, 1, "newer 1")
    assert newest(store) == "newer 1"
    assert sorted(aside(store)) == ["new 1", "old 1", "old 2", "old 3"]


def test_a_retired_checkpoint_is_taken_up_again_as_what_it_was(store: CheckpointStore) -> None:
    branch_off(store, 1, "new 1")
    save(store, 2, "new 2", line_of(store).head or UNKNOWN)
    back = leave(store, entry(store, f"{at(2)}.branch0"))
    assert back.is_branch
    assert (back.trajectory.id, back.trajectory.branch) == (OLD.id, 2)
    save(store, 2, "old 2 again", back.trajectory)
    retire(store)
    assert active(store) == ["old 2 again"]
    assert sorted(aside(store)) == ["new 1", "new 2", "old 1", "old 2", "old 3"]


def test_an_older_branch_that_led_here_counts_up_to_where_it_was_left(
    store: CheckpointStore,
) -> None:
    branch_off(store, 2, "new 2")
    save(store, 3, "new 3", line_of(store).head or UNKNOWN)
    branch_off(store, 3, "newer 3")
    assert active(store) == ["old 1", "new 2", "newer 3"]
    branch_off(store, 1, "newest 1")
    assert active(store) == ["newest 1"]
    assert len(aside(store)) == 6


def test_going_on_with_what_would_be_computed_again_is_no_branch(store: CheckpointStore) -> None:
    for batch in (1, 3):
        same = leave(store, entry(store, at(batch)))
        assert same == Continuation(OLD, is_branch=False)


def test_another_machine_makes_a_branch_only_where_something_lies_ahead(
    store: CheckpointStore,
) -> None:
    last = leave(store, entry(store, at(3)), CHANGE, by_choice=False)
    assert not last.is_branch
    assert last.trajectory.branch == 0
    assert last.trajectory.id != OLD.id
    assert leave(store, entry(store, at(2)), CHANGE, by_choice=False).is_branch
    # What was computed there counts, but going back before it is a branch now.
    save(store, 4, "there 4", last.trajectory)
    assert newest(store) == "there 4"
    assert leave(store, entry(store, at(2))).is_branch


def test_checkpoints_that_do_not_tell_are_of_one_trajectory_and_can_be_left() -> None:
    store = CheckpointStore(HOME, SimulatedDisk())
    for batch in (1, 2):
        save(store, batch, f"old {batch}", UNKNOWN)
    assert leave(store, entry(store, at(1))) == Continuation(UNKNOWN, is_branch=False)
    branch_off(store, 1, "new 1")
    assert active(store) == ["new 1"]
    assert sorted(aside(store)) == ["old 1", "old 2"]


def test_a_start_afresh_beside_other_checkpoints_is_a_branch_of_its_own(
    store: CheckpointStore,
) -> None:
    assert started_afresh(store, "0" * 64) == OLD
    other = started_afresh(store, "1" * 64)
    assert other == Trajectory("1" * 64, branch=1)
    save(store, 1, "other", other)
    assert active(store) == ["other"]
    assert started_afresh(CheckpointStore(HOME, SimulatedDisk()), "1" * 64).branch == 0


def test_a_start_afresh_never_left_what_the_run_before_it_left(store: CheckpointStore) -> None:
    branch_off(store, 1, "new 1")
    back = leave(store, entry(store, f"{at(1)}.branch0")).trajectory
    save(store, 1, "old 1 again", back)
    retire(store)
    assert (back.id, len(back.history)) == (OLD.id, 1)
    assert started_afresh(store, "0" * 64) == Trajectory("0" * 64, branch=3)


def test_numbers_of_retired_branches_are_not_given_away_again(store: CheckpointStore) -> None:
    branch_off(store, 1, "new 1")
    store.delete(store.entries())
    assert started_afresh(store, "1" * 64).branch == 1


def test_the_branches_of_another_folder_mean_nothing_here(store: CheckpointStore) -> None:
    branch_off(store, 2, "new 2")
    elsewhere = CheckpointStore(HOME.parent.parent / "other" / "checkpoints", store.filesystem)
    following = continuation(
        elsewhere, entry(store, at(2)), store.manifest(entry(store, at(2))), [], by_choice=False
    )
    assert following.is_branch
    assert [departure.branch for departure in following.trajectory.history] == [None, None]
    assert following.trajectory.id == line_of(store).trajectories[entry(store, at(2)).path].id


def test_a_damaged_checkpoint_belongs_nowhere_and_is_skipped(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for batch in (1, 2):
        save(store, batch, f"old {batch}")
    entry(store, at(3)).path.write_bytes(b"damaged")
    branch_off(store, 2, "new 2")
    assert newest(store) == "new 2"
    assert entry(store, at(3)).path.exists()
    for left in store.entries():
        left.path.write_bytes(b"damaged")
    way_out = rf"every checkpoint in .*--resume \S+/{at(2)}.branch0\), or restore the folder"
    with pytest.raises(CorruptCheckpointError, match=way_out) as caught:
        newest(store)
    assert "--overwrite" not in str(caught.value)
    for left in store.retired():
        left.path.write_bytes(b"damaged")
    with pytest.raises(CorruptCheckpointError, match=r"start afresh in another one .*--overwrite"):
        newest(store)


@pytest.mark.fault
@pytest.mark.parametrize(
    "branch", [10**9, 10**18, 10**260, -1, True], ids=("a", "b", "c", "d", "e")
)
def test_a_branch_that_no_name_can_carry_is_not_valid(branch: int) -> None:
    plain = {**OLD.to_plain(), "branch": branch}
    with pytest.raises(CorruptCheckpointError, match="no valid trajectory"):
        Trajectory.from_plain(plain)
    assert Trajectory.from_plain({**plain, "branch": 10**9 - 1}).branch == 10**9 - 1


@pytest.mark.fault
def test_nothing_follows_the_last_branch(store: CheckpointStore) -> None:
    last = save(store, 3, "last 3", replace(OLD, branch=10**9 - 1))
    for begin in (lambda: leave(store, last, CHANGE), lambda: started_afresh(store, "1" * 64)):
        with pytest.raises(CheckpointError, match="no branch can follow branch 999999999"):
            begin()


# --- retired checkpoints


def test_retired_checkpoints_keep_their_objects_and_count_as_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for batch in (1, 2, 3):
        save(store, batch, f"old {batch}")
    branch_off(store, 1, "new 1")
    assert garbage(store) == []
    files = [*store.directory.glob("*.pt*"), *(store.directory / "objects").iterdir()]
    assert kept_bytes(store) == sum(path.stat().st_size for path in files)
    assert keep_within(store, entry(store, at(1)), 1) == []
    assert sorted(aside(store)) == ["old 1", "old 2", "old 3"]
    store.delete(store.retired())
    assert {path.suffix for path in garbage(store)} == {".safetensors"}
    assert len(collect_garbage(store)) == 3


def test_a_retired_checkpoint_is_named_after_its_position_and_its_branch() -> None:
    found = CheckpointEntry.at(HOME / f"{at(7)}.branch3")
    assert (found.position.batch, found.name, found.branch) == (7, at(7), 3)
    assert CheckpointEntry.at(HOME / at(7)).branch is None
    for wrong in (
        f"{at(7)}.branch{10**9}",
        f"{at(7)}.branch",
        f"{at(7)}.branch03",
        "x.pt.branch0",
        f"{at(7)}.branch0.pin",
    ):
        with pytest.raises(CheckpointNotFoundError):
            CheckpointEntry.at(HOME / wrong)


def test_pins_go_with_what_is_retired(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    entries = [save(store, batch, f"old {batch}") for batch in (1, 2, 3)]
    for kept in entries[1:]:
        pin(store, kept)
    branch_off(store, 2, "new 2")
    assert pinned(store) == set()
    assert [is_pinned(store, retired) for retired in store.retired()] == [True, True]
    assert garbage(store) == []


# --- instants


def require_old_or_new(image: Image, *, is_new: bool) -> None:
    """A run goes on with all of the old line or with the new one, and nothing is ever lost."""
    store = CheckpointStore(HOME, SimulatedDisk.holding(image))
    assert newest(store) in (["new 2"] if is_new else ["old 3", "new 2"])
    is_new = newest(store) == "new 2"
    assert active(store) == (["old 1", "new 2"] if is_new else ["old 1", "old 2", "old 3"])
    tidy(store, line_of(store).entries[-1], keep_last=5)
    assert active(store) == (["old 1", "new 2"] if is_new else ["old 1", "old 2", "old 3"])
    assert aside(store) == (["old 2", "old 3"] if is_new else [])
    spared = [e for e in store.everything() if is_pinned(store, e)]
    assert {note_of(store, e) for e in spared} >= {"old 2", "old 3"}
    if not is_new:
        branch_off(store, 2, "new 2")
        assert (active(store), aside(store)) == (["old 1", "new 2"], ["old 2", "old 3"])


DISKS: list[Callable[[], SimulatedDisk]] = [SimulatedDisk, WithoutLinks]


@pytest.mark.fault
@pytest.mark.parametrize("make", DISKS)
def test_no_power_cut_mixes_the_lines_or_loses_one(make: Callable[[], SimulatedDisk]) -> None:
    disk, seen = make(), set()
    store = old_line(disk)
    is_new = False

    def check(_: SimulatedDisk) -> None:
        for image in disk.after_power_cut():
            state = frozenset(image.items())
            if (state, is_new) not in seen:
                seen.add((state, is_new))
                require_old_or_new(image, is_new=is_new)

    trajectory = leave(store, entry(store, at(2)), CHANGE).trajectory
    disk.before_operation = check
    saved = save(store, 2, "new 2", trajectory)
    is_new = True
    retire(store)
    rotate(store, saved, keep_last=5)
    check(disk)
    assert len(seen) > 30


@pytest.mark.fault
@pytest.mark.parametrize("make", DISKS)
def test_a_branch_killed_at_any_operation_is_made_by_the_same_command(
    make: Callable[[], SimulatedDisk],
) -> None:
    for operation in range(1000):
        disk = make()
        store = old_line(disk)
        disk.before_operation = kill_after(operation)
        try:
            branch_off(store, 2, "new 2")
        except KilledError:
            left = replace(disk, before_operation=nothing)
        else:
            assert operation > 12
            return
        require_old_or_new(dict(content(left)), is_new=False)
    raise AssertionError("it never ends")


def content(disk: SimulatedDisk) -> Image:
    """Return what a process sees after another one was killed."""
    return {path: file.data for path, file in disk.names_now.items()}


@pytest.mark.fault
def test_a_disk_that_does_not_flush_what_is_moved_aside_is_caught() -> None:
    disk = SimulatedDisk(flushes_names=lambda _: False)
    store = old_line(disk)
    disk.names_durable, disk.unflushed = dict(disk.names_now), {}
    branch_off(store, 2, "new 2")

    def check() -> None:
        for image in disk.after_power_cut():
            require_old_or_new(image, is_new=True)

    with pytest.raises(AssertionError):
        check()
