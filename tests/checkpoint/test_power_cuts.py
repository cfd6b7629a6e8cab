"""Every state that a power cut may leave of a run's checkpoints, at every operation of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint.samples import sealed
from checkpoint.simulated_disk import Image, KilledError, SimulatedDisk, kill_after, nothing
from plora_cl.checkpoint.disk.filesystem import Filesystem, ReadableBytes
from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.store.retention import collect_garbage, rotate
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError

HOME = Path("/experiments/run/checkpoints")


class LostCheckpointError(Exception):
    """What was acknowledged is not there, or what is there cannot be used."""


class Run:
    """Commits checkpoints and remembers which ones it was told are safe.

    Attributes:
        promised: Name of each acknowledged checkpoint, with the contents it may have.
        states: Images that were checked.
    """

    def __init__(self, disk: SimulatedDisk, make: type[CheckpointStore]) -> None:
        self.disk = disk
        self.store = make(HOME, disk)
        self.promised: dict[str, set[str]] = {}
        self.seen: set[frozenset[tuple[Path, bytes]]] = set()
        self.states = 0

    def watch(self) -> None:
        self.disk.before_operation = lambda disk: self.check(disk.after_power_cut())

    def commit(self, name: str, note: str, objects: Iterable[str]) -> CheckpointEntry:
        refs = {text: self.store.objects.put(text.encode()) for text in objects}
        if name in self.promised:
            self.promised[name] = {*self.promised[name], note}
        entry = self.store.commit(name, sealed(note=note, objects=refs))
        self.promised[name] = {note}
        return entry

    def rotate(self, current: CheckpointEntry, keep_last: int, *, going: Iterable[str]) -> None:
        for name in going:
            del self.promised[name]
        rotate(self.store, current, keep_last)
        if {entry.path.name for entry in self.store.entries()} != self.promised.keys():
            raise LostCheckpointError("rotation removed something else")

    def check(self, images: Iterable[Image]) -> None:
        promise = frozenset(
            (Path(n), note.encode()) for n, s in self.promised.items() for note in s
        )
        for image in images:
            state = frozenset(image.items()) | promise
            if state not in self.seen:
                self.seen.add(state)
                require_usable(image, self.promised)
        self.states = len(self.seen)


def require_usable(image: Image, promised: dict[str, set[str]]) -> None:
    store = CheckpointStore(HOME, SimulatedDisk.holding(image))
    notes: dict[str, str] = {}
    for entry in store.entries():
        try:
            manifest = sealed_zip.open_sealed(store.read(entry))
            for text, ref in manifest.objects.items():
                if store.objects.get(ref) != text.encode():
                    raise LostCheckpointError(f"{entry.path.name} has another object")
        except CheckpointError as error:
            raise LostCheckpointError(str(error)) from error
        notes[entry.path.name] = manifest.settings["note"]
    for name, allowed in promised.items():
        if notes.get(name) not in allowed:
            raise LostCheckpointError(f"{name} is {notes.get(name)}, promised {allowed}")


def train(run: Run) -> None:
    """Save within two tasks, save again over the same name, rotate, and drop objects."""
    first = run.commit("checkpoint_task0_epoch0_batch9.pt", "a", ["base", "anchor-0"])
    run.rotate(first, 1, going=[])
    name = "checkpoint_task0_epoch0_batch10.pt"
    run.rotate(run.commit(name, "b", ["base", "anchor-0"]), 1, going=[first.path.name])
    final = run.commit(name, "b again", ["base", "adapter-0"])
    run.rotate(final, 1, going=[])
    third = run.commit("checkpoint_task1_epoch0_batch9.pt", "c", ["base", "adapter-0", "fisher"])
    run.rotate(third, 1, going=[])
    fourth = run.commit("checkpoint_task1_epoch0_batch19.pt", "d", ["base", "adapter-0"])
    run.rotate(fourth, 1, going=[third.path.name])
    collect_garbage(run.store)


def watched_run(disk: SimulatedDisk, make: type[CheckpointStore] = CheckpointStore) -> Run:
    run = Run(disk, make)
    run.watch()
    train(run)
    run.check(disk.after_power_cut())
    return run


def test_no_power_cut_at_any_operation_loses_an_acknowledged_checkpoint() -> None:
    run = watched_run(SimulatedDisk())
    assert run.states > 70
    assert len(run.store.entries()) == 2
    assert len(run.disk.names(HOME / "objects")) == 2


def test_no_power_cut_brings_back_a_checkpoint_that_was_deleted() -> None:
    disk = SimulatedDisk()
    run = Run(disk, CheckpointStore)
    run.store.delete([run.commit("checkpoint_task0_epoch0_batch9.pt", "a", ["base"])])
    images = list(disk.after_power_cut())
    assert images
    assert not any(path.suffix == ".pt" for image in images for path in image)


def is_objects(path: Path) -> bool:
    return path.name == "objects"


@pytest.mark.parametrize(
    "disk",
    [
        pytest.param(SimulatedDisk(flushes_data=False), id="no fsync"),
        pytest.param(SimulatedDisk(flushes_names=lambda _: False), id="no directory fsync"),
        pytest.param(
            SimulatedDisk(flushes_names=lambda path: not is_objects(path)),
            id="no fsync of objects/",
        ),
        pytest.param(SimulatedDisk(flushes_names=is_objects), id="no fsync of checkpoints/"),
    ],
)
def test_a_store_that_forgets_to_flush_is_caught(disk: SimulatedDisk) -> None:
    with pytest.raises(LostCheckpointError):
        watched_run(disk)


class DeletesFirst(CheckpointStore):
    def commit(self, name: str, data: bytes, manifest: Manifest | None = None) -> CheckpointEntry:
        self.delete(entry for entry in self.entries() if entry.path.name != name)
        return super().commit(name, data, manifest)


class RemovesObjectsFirst(CheckpointStore):
    def delete(self, entries: Iterable[CheckpointEntry]) -> None:
        doomed = list(entries)
        needed = {
            ref.sha256
            for entry in self.entries()
            if entry not in doomed
            for ref in self.manifest(entry).objects.values()
        }
        for entry in doomed:
            for ref in self.manifest(entry).objects.values():
                if ref.sha256 not in needed:
                    self.filesystem.remove(self.directory / "objects" / ref.file_name)
        super().delete(doomed)


@pytest.mark.parametrize("make", [DeletesFirst, RemovesObjectsFirst])
def test_a_store_that_deletes_too_early_is_caught(make: type[CheckpointStore]) -> None:
    with pytest.raises(LostCheckpointError):
        watched_run(SimulatedDisk(), make)


def writes_in_place(filesystem: Filesystem, path: Path, data: ReadableBytes) -> None:
    if filesystem.size(path) is not None:
        filesystem.remove(path)
    filesystem.write(path, data)
    filesystem.sync_directory(path.parent)


def renames_before_writing(filesystem: Filesystem, path: Path, data: ReadableBytes) -> None:
    empty = path.with_name(".empty.partial")
    filesystem.write(empty, b"")
    filesystem.rename(empty, path)
    writes_in_place(filesystem, path, data)


@pytest.mark.parametrize("mutant", [writes_in_place, renames_before_writing])
def test_a_store_that_does_not_rename_last_is_caught(
    mutant: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plora_cl.checkpoint.store.store.write_durably", mutant)
    with pytest.raises(LostCheckpointError):
        watched_run(SimulatedDisk())


def killed_run(operation: int) -> tuple[Run, bool]:
    """Return a run that was killed before its ``operation``-th one, and whether it was."""
    run = Run(SimulatedDisk(kill_after(operation)), CheckpointStore)
    try:
        train(run)
    except KilledError:
        return run, True
    return run, False


def survive_power_cuts_after_a_kill(make: type[CheckpointStore], *, cleans_first: bool) -> int:
    """Kill a run at every operation, go on with a new process, cut the power at every one of its.

    Returns:
        How many images were checked.
    """
    states = 0
    for operation in range(1000):
        dead, was_killed = killed_run(operation)
        if not was_killed:
            assert operation > 40
            return states
        disk = replace(dead.disk, before_operation=nothing)
        heir = Run(disk, make)
        visible = {entry.path.name: entry for entry in heir.store.entries()}
        for name, allowed in dead.promised.items():
            assert (
                sealed_zip.open_sealed(heir.store.read(visible[name])).settings["note"] in allowed
            )
            heir.promised[name] = allowed
        heir.watch()
        if cleans_first:
            collect_garbage(heir.store)
        heir.commit("checkpoint_task1_epoch1_batch0.pt", "heir", ["base", "anchor-0"])
        collect_garbage(heir.store)
        heir.commit("checkpoint_task1_epoch1_batch1.pt", "heir", ["base", "adapter-0", "fisher"])
        heir.check(disk.after_power_cut())
        leftover = [p for p in disk.names_now if p.name.endswith(".partial")]
        assert not leftover
        states += heir.states
    raise AssertionError("the run never ends")


@pytest.mark.fault
@pytest.mark.parametrize("cleans_first", [False, True])
def test_no_power_cut_after_a_kill_at_any_operation_loses_an_acknowledged_checkpoint(
    cleans_first: bool,
) -> None:
    assert survive_power_cuts_after_a_kill(CheckpointStore, cleans_first=cleans_first) > 1000


class TrustsNamesLeftBehind(CheckpointStore):
    def __init__(self, directory: Path, filesystem: Filesystem | None = None) -> None:
        super().__init__(directory, filesystem)
        self.objects._synced = True


def test_a_store_that_trusts_names_left_by_a_killed_process_is_caught() -> None:
    with pytest.raises(LostCheckpointError):
        survive_power_cuts_after_a_kill(TrustsNamesLeftBehind, cleans_first=False)
