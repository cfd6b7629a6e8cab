"""Every state that a power cut may leave of a fork and of an import, at every operation."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from checkpoint.components import Holder, Plain, capture
from checkpoint.simulated_disk import Image, KilledError, SimulatedDisk, kill_after, nothing
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools import new_experiment
from plora_cl.checkpoint.tools.bundle import export_bundle, import_bundle
from plora_cl.checkpoint.tools.fork import fork
from plora_cl.checkpoint.tools.new_experiment import put
from plora_cl.errors import CheckpointError, ExperimentExistsError
from plora_cl.state import Stateful

NAME = "checkpoint_task1_epoch2_batch2.pt"
PARENT, CHILD = Path("/experiments/parent"), Path("/experiments/child")
LOG = b'{"step": 1}\n'


class LostCheckpointError(Exception):
    """What was acknowledged is not there, or what is there cannot be used."""


class WithoutLinks(SimulatedDisk):
    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")


def make_parent(folder: Path, disk: Filesystem) -> CheckpointEntry:
    disk.make_directory(folder / "results")
    disk.write(folder / RUN_LOG, LOG + b'{"step": 2}\n')
    disk.sync_directory(folder / "results")
    store = CheckpointStore(folder / "checkpoints", disk)
    refs = {name: store.objects.put(name.encode()) for name in ("base", "head")}
    log = {"bytes": len(LOG), "records": 1, "sha256": hashlib.sha256(LOG).hexdigest()}
    parts: dict[str, Stateful] = {"model": Holder(torch.arange(5.0)), "run_log": Plain(log)}
    return store.commit(NAME, encode(capture(parts, objects=refs)))


@dataclass
class Making:
    """One way to make ``CHILD``, and the disk it is made on."""

    disk: SimulatedDisk
    make: Callable[[SimulatedDisk], CheckpointEntry]


def forked(disk: SimulatedDisk) -> Making:
    source = make_parent(PARENT, disk)
    same: dict[str, Any] = {"settings": {}, "accepted": [], "config": "seed: 1\n"}
    return Making(disk, lambda disk: fork(source, CHILD, **same, filesystem=disk).entry)


def imported(file: Path) -> Making:
    folder = file.parent / "parent"
    if not file.exists():
        export_bundle(make_parent(folder, Filesystem()), file, config="")

    def make(disk: SimulatedDisk) -> CheckpointEntry:
        return import_bundle(file, CHILD, config=lambda _: "seed: 1\n", filesystem=disk)

    return Making(SimulatedDisk(), make)


@pytest.fixture(params=["fork", "fork without links", "import"])
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Making]:
    ways: dict[str, Callable[[], Making]] = {
        "fork": lambda: forked(SimulatedDisk()),
        "fork without links": lambda: forked(WithoutLinks()),
        "import": lambda: imported(tmp_path / "file.tar"),
    }
    return ways[request.param]


def entries_of(folder: Path, disk: SimulatedDisk) -> list[CheckpointEntry]:
    """Return the checkpoints of an experiment; every byte of them and of their objects is right."""
    store = CheckpointStore(folder / "checkpoints", disk)
    entries = store.entries()
    try:
        for entry in entries:
            store.read(entry)
            for ref in store.manifest(entry).objects.values():
                store.objects.verify(ref)
    except CheckpointError as error:
        raise LostCheckpointError(str(error)) from error
    return entries


def require_complete(disk: SimulatedDisk) -> None:
    """The child has its checkpoint, and with it all that the command says it has."""
    if not entries_of(CHILD, disk):
        raise LostCheckpointError("the new experiment has no checkpoint")
    for name, content in ((RUN_LOG, LOG), ("config.yaml", b"seed: 1\n")):
        file = disk.names_now.get(CHILD / name)
        if file is None or file.data != content:
            raise LostCheckpointError(f"{name} is not there, or not whole")
    if not disk.names_now[CHILD / "lineage.json"].data.endswith(b"}\n"):
        raise LostCheckpointError("lineage.json is not whole")


def require_unfinished_or_complete(image: Image, making: Making) -> None:
    """The parent is whole, and the child is complete or becomes so by the same command."""
    disk = SimulatedDisk.holding(image)
    if any(path.is_relative_to(PARENT) for path in image):
        assert len(entries_of(PARENT, disk)) == 1
    if entries_of(CHILD, disk):
        require_complete(disk)
        with pytest.raises(ExperimentExistsError):
            making.make(disk)
    else:
        making.make(disk)
        require_complete(disk)


def cut_everywhere(making: Making) -> int:
    """Make the child, cut the power at every operation; return the number of different images."""
    seen: set[frozenset[tuple[Path, bytes]]] = set()

    def check(disk: SimulatedDisk) -> None:
        for image in disk.after_power_cut():
            state = frozenset(image.items())
            if state not in seen:
                seen.add(state)
                require_unfinished_or_complete(image, making)

    making.disk.before_operation = check
    make_durably(making)
    return len(seen)


def make_durably(making: Making) -> None:
    """Make the child and cut the power right after."""
    making.make(making.disk)
    for image in making.disk.after_power_cut():
        require_complete(SimulatedDisk.holding(image))


@pytest.mark.fault
def test_no_power_cut_leaves_half_an_experiment_that_passes_for_one(
    begin: Callable[[], Making],
) -> None:
    assert cut_everywhere(begin()) > 40


@pytest.mark.fault
def test_what_was_killed_at_any_operation_is_completed_by_the_same_command(
    begin: Callable[[], Making],
) -> None:
    for operation in range(1000):
        making = begin()
        making.disk.before_operation = kill_after(operation)
        try:
            making.make(making.disk)
        except KilledError:
            making.disk.before_operation = nothing
        else:
            assert operation > 30
            return
        if not entries_of(CHILD, making.disk):
            making.make(making.disk)
        require_complete(making.disk)
    raise AssertionError("it never ends")


def test_nothing_is_made_past_the_file_system_it_is_given(
    begin: Callable[[], Making], monkeypatch: pytest.MonkeyPatch
) -> None:
    making = begin()
    for name in ("write", "rename", "remove", "make_directory", "sync_directory", "link"):
        monkeypatch.delattr(Filesystem, name)
    making.make(making.disk)
    require_complete(making.disk)


def test_an_experiment_that_is_not_flushed_is_caught(begin: Callable[[], Making]) -> None:
    for forgets in ({"flushes_data": False}, {"flushes_names": lambda _: False}):
        making = begin()
        vars(making.disk).update(forgets)
        with pytest.raises(LostCheckpointError):
            make_durably(making)


@pytest.mark.parametrize("late", ["config.yaml", RUN_LOG])
def test_a_file_that_is_not_flushed_before_the_checkpoint_is_caught(
    begin: Callable[[], Making], late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_flush(filesystem: Filesystem, path: Path, data: Any) -> None:
        filesystem.write(path, data if isinstance(data, bytes) else b"".join(data))

    def lazy(filesystem: Filesystem, path: Path, data: Any) -> None:
        lazily = path.is_relative_to(CHILD) and str(path).endswith(late)
        (without_flush if lazily else put)(filesystem, path, data)

    monkeypatch.setattr(new_experiment, "put", lazy)
    with pytest.raises(LostCheckpointError):
        make_durably(begin())
