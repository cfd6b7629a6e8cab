"""Large objects of experiments side by side are one file, which is never changed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from checkpoint.samples import sealed
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.store import hard_links
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.verification import verify

BASE = bytes(range(256)) * (hard_links.SHARED_FROM_BYTES // 256)
REF = ObjectRef.of(BASE)
NAME = "checkpoint_task0_epoch0_batch9.pt"

ERRORS = ("EXDEV", "EPERM", "EMLINK", "ENOTSUP", "EOPNOTSUPP", "EACCES", "ENOENT", "ENOSPC", "EIO")


class Experiments:
    """Stores that are opened anew each time, as another process would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, name: str, filesystem: Filesystem | None = None) -> CheckpointStore:
        return CheckpointStore(self.folder / name / "checkpoints", filesystem)

    def save(self, name: str, filesystem: Filesystem | None = None) -> Path:
        store = self.store(name, filesystem)
        ref = store.objects.put(BASE)
        store.commit(NAME, sealed(objects={"model/base": ref}))
        return store.objects.path(ref)

    def require_written(self, path: Path, sibling: Path) -> None:
        """``path`` is a file of its own, whole, and nothing else was left behind."""
        assert not path.samefile(sibling)
        assert path.read_bytes() == BASE
        assert [child.name for child in path.parent.iterdir()] == [path.name]


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    return Experiments(tmp_path)


def damage(path: Path) -> None:
    """Flip a bit where it is: what a failing disk does."""
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 4]))


def test_an_object_that_a_sibling_has_is_linked(experiments: Experiments) -> None:
    one, two, three = (experiments.save(name) for name in "abc")
    assert one.samefile(two)
    assert one.samefile(three)
    assert one.stat().st_nlink == 3
    assert [path.name for path in two.parent.iterdir()] == [REF.file_name]
    assert experiments.store("b").objects.get(REF) == BASE


def test_it_is_flushed_and_verified_before_it_has_its_name_and_the_name_before_the_commit(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = experiments.save("a")
    calls: list[str] = []
    fsync, holds = os.fsync, hard_links.holds

    def note_flush(descriptor: int) -> None:
        calls.append("file" if os.path.samestat(os.fstat(descriptor), sibling.stat()) else "")
        fsync(descriptor)

    def note_reading(file: BinaryIO, ref: ObjectRef) -> bool:
        calls.append("read")
        return holds(file, ref)

    class Disk(Filesystem):
        def rename(self, source: Path, target: Path) -> None:
            calls.append(f"rename {target.parent.name}")
            super().rename(source, target)

        def sync_directory(self, path: Path) -> None:
            calls.append(f"sync {path.name}")
            super().sync_directory(path)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(hard_links, "holds", note_reading)
    experiments.save("b", Disk())
    order = ["file", "read", "rename objects", "sync objects", "rename checkpoints"]
    assert [call for call in calls if call in order][-5:] == order


@pytest.mark.fault
@pytest.mark.parametrize("code", ERRORS)
def test_where_the_disk_does_not_link_the_object_is_written(
    experiments: Experiments, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, code), code)

    sibling = experiments.save("a")
    monkeypatch.setattr(os, "link", refuse)
    experiments.require_written(experiments.save("b"), sibling)


@pytest.mark.fault
@pytest.mark.parametrize("operation", ["open", "rename", "names"])
def test_where_linking_fails_half_way_the_object_is_written(
    experiments: Experiments, operation: str
) -> None:
    class Disk(Filesystem):
        failures = 0

    def refuse(disk: Disk, *arguments: object) -> object:
        disk.failures += 1
        if disk.failures == 1:
            raise OSError(errno.EIO, "Input/output error")
        return getattr(super(Disk, disk), operation)(*arguments)

    sibling = experiments.save("a")
    setattr(Disk, operation, refuse)
    disk = Disk()
    experiments.require_written(experiments.save("b", disk), sibling)
    assert disk.failures > 0


@pytest.mark.fault
def test_a_damaged_sibling_is_never_linked_and_named_in_a_warning(
    experiments: Experiments, caplog: pytest.LogCaptureFixture
) -> None:
    sibling = experiments.save("a")
    damage(sibling)
    with caplog.at_level(logging.WARNING):
        experiments.require_written(experiments.save("b"), sibling)
    assert f"{sibling} is damaged" in caplog.text
    assert experiments.save("c").samefile(experiments.store("b").objects.path(REF))


def linked_to_elsewhere(sibling: Path) -> None:
    elsewhere = sibling.parents[3] / "elsewhere"
    sibling.rename(elsewhere)
    sibling.symlink_to(elsewhere)


def a_pipe(sibling: Path) -> None:
    sibling.unlink()
    os.mkfifo(sibling)


def a_file_instead_of_the_folder(sibling: Path) -> None:
    shutil.rmtree(sibling.parent)
    sibling.parent.write_bytes(b"")


@pytest.mark.parametrize("change", [linked_to_elsewhere, a_pipe, a_file_instead_of_the_folder])
def test_what_is_not_a_regular_file_is_not_linked(
    experiments: Experiments, change: Callable[[Path], None]
) -> None:
    change(experiments.save("a"))
    path = experiments.save("b")
    assert path.stat().st_nlink == 1
    assert not path.is_symlink()
    assert path.read_bytes() == BASE


def test_a_symbolic_link_is_refused_also_when_it_appears_after_the_look(
    experiments: Experiments, caplog: pytest.LogCaptureFixture
) -> None:
    class Disk(Filesystem):
        def open(self, path: Path) -> BinaryIO:
            if path == sibling and not path.is_symlink():
                linked_to_elsewhere(path)
            return super().open(path)

    sibling = experiments.save("a")
    experiments.require_written(experiments.save("b", Disk()), sibling)
    assert "is not shared" in caplog.text


def test_a_file_of_another_user_is_not_linked(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = experiments.save("a")
    monkeypatch.setattr(os, "geteuid", lambda: sibling.stat().st_uid + 1)
    experiments.require_written(experiments.save("b"), sibling)


@pytest.mark.fault
@pytest.mark.parametrize("replaced_by", [None, BASE, b"x" * len(BASE)])
def test_a_sibling_that_goes_or_changes_half_way_is_not_linked(
    experiments: Experiments, replaced_by: bytes | None
) -> None:
    class Disk(Filesystem):
        def link(self, file: BinaryIO, source: Path, target: Path) -> None:
            source.unlink()
            if replaced_by is not None:
                source.write_bytes(replaced_by)
            super().link(file, source, target)

    sibling = experiments.save("a")
    path = experiments.save("b", Disk())
    assert path.stat().st_nlink == 1
    assert path.read_bytes() == BASE
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    assert sibling.exists() == (replaced_by is not None)


def test_what_is_verified_is_what_was_linked_whatever_the_name_says_by_then(
    experiments: Experiments,
) -> None:
    class Disk(Filesystem):
        def link(self, file: BinaryIO, source: Path, target: Path) -> None:
            super().link(file, source, target)
            source.unlink()
            source.write_bytes(BASE)

    damage(experiments.save("a"))
    path = experiments.save("b", Disk())
    assert path.read_bytes() == BASE


def test_one_experiment_goes_and_the_other_still_loads(experiments: Experiments) -> None:
    path = experiments.save("a")
    experiments.save("b")
    store = experiments.store("b")
    store.delete(store.entries())
    assert [removed.name for removed in collect_garbage(store)] == [REF.file_name]
    assert verify(experiments.store("a")).is_intact
    experiments.save("b")
    shutil.rmtree(experiments.folder / "a")
    assert not path.exists()
    assert verify(experiments.store("b")).is_intact
    assert experiments.store("b").objects.get(REF) == BASE


@pytest.mark.fault
def test_what_is_damaged_in_both_is_written_anew_in_one_and_then_linked_by_the_other(
    experiments: Experiments,
) -> None:
    one, two = experiments.save("a"), experiments.save("b")
    damage(one)
    rotten = two.read_bytes()
    assert not verify(experiments.store("b")).is_intact
    experiments.save("a")
    assert one.read_bytes() == BASE
    assert two.read_bytes() == rotten, "a linked file was changed in place"
    assert experiments.save("b").samefile(one)
    assert [child.name for child in two.parent.iterdir()] == [two.name]


def test_an_unreadable_object_that_its_sibling_shares_leaves_no_second_name(
    experiments: Experiments,
) -> None:
    """A rename between two names of one file does nothing, not even remove the first one."""

    class Disk(Filesystem):
        refused = False

        def open(self, path: Path) -> BinaryIO:
            if path == two and not self.refused:
                self.refused = True
                raise OSError(errno.EIO, "Input/output error")
            return super().open(path)

    one, two = experiments.save("a"), experiments.save("b")
    assert experiments.save("b", Disk()).samefile(one)
    assert [child.name for child in two.parent.iterdir()] == [two.name]


def test_small_objects_and_what_is_there_already_are_not_looked_for(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk(Filesystem):
        def names(self, path: Path) -> tuple[str, ...]:
            raise AssertionError(f"{path} was listed")

    small = experiments.store("a").objects.put(BASE[1:])
    monkeypatch.setattr(os, "link", Disk().names)
    store = experiments.store("b", Disk())
    assert store.objects.put(BASE[1:]) == small
    experiments.save("a")
    experiments.store("a", Disk()).objects.put(BASE)


def test_only_the_layout_of_experiments_is_searched(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        store = CheckpointStore(tmp_path / name / "saves")
        paths.append(store.objects.path(store.objects.put(BASE)))
    assert not paths[0].samefile(paths[1])


def test_a_folder_named_relatively_finds_its_siblings(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = experiments.save("a")
    (experiments.folder / "b").mkdir()
    monkeypatch.chdir(experiments.folder / "b")
    store = CheckpointStore(Path("checkpoints"))
    store.objects.put(BASE)
    assert store.objects.path(REF).samefile(sibling)
