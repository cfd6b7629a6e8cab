"""Every state that a power cut may leave of two experiments, one linking an object of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from checkpoint.samples import sealed
from checkpoint.simulated_disk import File, KilledError, SimulatedDisk, kill_after, nothing
from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.store import hard_links
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError

ONE, TWO = Path("/experiments/one/checkpoints"), Path("/experiments/two/checkpoints")
BASE = b"base weights"
REF = ObjectRef.of(BASE)
FIRST, SECOND = checkpoint_name(0, 0, 9), checkpoint_name(0, 0, 19)


class LostCheckpointError(Exception):
    """What was acknowledged is not there, or what is there cannot be used."""


@pytest.fixture(autouse=True)
def _shares_small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_links, "SHARED_FROM_BYTES", 1)


class Promises:
    """Checkpoints that were acknowledged; each image that a power cut may leave must have them."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.stores = {home: CheckpointStore(home, disk) for home in (ONE, TWO)}
        self.made: set[Path] = set()
        self.seen: set[frozenset[tuple[Path, bytes]]] = set()

    def save(self, home: Path, name: str, *objects: bytes) -> None:
        store = self.stores[home]
        refs = {str(data): store.objects.put(data) for data in objects}
        self.made.add(store.commit(name, sealed(note=name, objects=refs)).path)

    def drop(self, home: Path) -> None:
        self.made = {path for path in self.made if path.parent != home}
        store = self.stores[home]
        store.delete(store.entries())
        collect_garbage(store)

    def check(self, disk: SimulatedDisk) -> None:
        for image in disk.after_power_cut():
            state = frozenset({*image.items(), *((path, b"promised") for path in self.made)})
            if state not in self.seen:
                self.seen.add(state)
                require_whole(SimulatedDisk.holding(image), self.made)


def require_whole(disk: SimulatedDisk, promised: set[Path]) -> None:
    """Whatever is there is whole, and what was promised is there."""
    found = set()
    for home in (ONE, TWO):
        store = CheckpointStore(home, disk)
        for entry in store.entries():
            try:
                manifest = sealed_zip.open_sealed(store.read(entry))
                for ref in manifest.objects.values():
                    store.objects.verify(ref)
            except CheckpointError as error:
                raise LostCheckpointError(str(error)) from error
            found.add(entry.path)
    if missing := promised - found:
        raise LostCheckpointError(f"{missing} is not there")


def an_older_experiment(disk: SimulatedDisk) -> None:
    """One saved it long ago."""
    Promises(disk).save(ONE, FIRST, BASE)


def a_copy_not_flushed(disk: SimulatedDisk) -> None:
    """Somebody copied the object a moment ago; nothing of it has reached the disk."""
    file = File(BASE)
    path = ONE / "objects" / REF.file_name
    disk.names_now[path] = disk.names_durable[path] = file


def a_damaged_experiment(disk: SimulatedDisk) -> None:
    file = File(BASE[:-1] + b"?", is_durable=True)
    path = ONE / "objects" / REF.file_name
    disk.names_now[path] = disk.names_durable[path] = file


Beginning = Callable[[SimulatedDisk], None]
BEGINNINGS: list[Beginning] = [an_older_experiment, a_copy_not_flushed, a_damaged_experiment]


def experiments(promises: Promises) -> Iterator[None]:
    """Two saves and links an object of one; one goes; one comes back and links from two."""
    promises.save(TWO, FIRST, b"own")
    yield
    promises.save(TWO, SECOND, b"own", BASE)
    yield
    promises.drop(ONE)
    yield
    promises.save(ONE, SECOND, BASE)
    yield
    promises.drop(TWO)


def watched(disk: SimulatedDisk, beginning: Beginning) -> Promises:
    beginning(disk)
    promises = Promises(disk)
    disk.before_operation = promises.check
    for _ in experiments(promises):
        promises.check(disk)
    promises.check(disk)
    return promises


def are_one_file(disk: SimulatedDisk) -> bool:
    files = [disk.names_now.get(home / "objects" / REF.file_name) for home in (ONE, TWO)]
    return files[0] is not None and files[0] is files[1]


@pytest.mark.fault
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_no_power_cut_while_objects_are_shared_loses_a_checkpoint(beginning: Beginning) -> None:
    disk = SimulatedDisk()
    promises = watched(disk, beginning)
    assert promises.made == {ONE / SECOND}
    assert len(promises.seen) > 30
    assert not [path for path in disk.names_now if path.name.endswith(".partial")]


def test_the_object_is_one_file_unless_it_is_damaged() -> None:
    for beginning in BEGINNINGS:
        disk = SimulatedDisk()
        beginning(disk)
        Promises(disk).save(TWO, FIRST, BASE)
        assert are_one_file(disk) == (beginning is not a_damaged_experiment)


@pytest.mark.fault
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_no_power_cut_after_a_kill_while_objects_are_shared_loses_a_checkpoint(
    beginning: Beginning,
) -> None:
    states = 0
    for operation in range(1000):
        dead, was_killed = killed(operation, beginning)
        if not was_killed:
            assert operation > 30
            assert states > 300
            return
        heir = Promises(replace(dead.disk, before_operation=nothing))
        heir.made = dead.made
        heir.disk.before_operation = heir.check
        heir.save(TWO, SECOND, BASE)
        heir.save(ONE, SECOND, BASE)
        heir.check(heir.disk)
        states += len(heir.seen)
    raise AssertionError("the run never ends")


def killed(operation: int, beginning: Beginning) -> tuple[Promises, bool]:
    disk = SimulatedDisk()
    beginning(disk)
    disk.before_operation = kill_after(operation)
    promises = Promises(disk)
    try:
        for _ in experiments(promises):
            pass
    except KilledError:
        return promises, True
    return promises, False


class LinksWithoutFlushing(SimulatedDisk):
    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        was_durable = self.names_now[source].is_durable
        super().link(file, source, target)
        self.names_now[target].is_durable = was_durable


def is_objects(path: Path) -> bool:
    return path.name == "objects"


@pytest.mark.parametrize(
    "disk",
    [
        pytest.param(LinksWithoutFlushing(), id="no fsync of the linked file"),
        pytest.param(SimulatedDisk(flushes_names=lambda p: not is_objects(p)), id="nor of objects"),
    ],
)
def test_a_link_that_is_not_flushed_is_caught(disk: SimulatedDisk) -> None:
    with pytest.raises(LostCheckpointError):
        watched(disk, a_copy_not_flushed)


def test_a_link_that_is_not_verified_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_links, "holds", lambda *_: True)
    with pytest.raises(LostCheckpointError):
        watched(SimulatedDisk(), a_damaged_experiment)
