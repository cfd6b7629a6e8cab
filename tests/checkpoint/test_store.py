from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint.samples import sealed
from plora_cl.checkpoint.disk.filesystem import Content, Filesystem, ReadableBytes
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.naming import Position
from plora_cl.checkpoint.store.retention import collect_garbage, rotate
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    IncompatibleCheckpointError,
)


def name(batch: int, task: int = 0) -> str:
    return f"checkpoint_task{task}_epoch0_batch{batch}.pt"


def file_names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


class FaultyFilesystem(Filesystem):
    """Raises ``error`` in the operations, counted from 0, that ``fails`` picks.

    A failing write leaves half its bytes behind.
    """

    def __init__(self, error: BaseException, fails: Callable[[int], bool]) -> None:
        self._error, self._fails = error, fails
        self.operations = 0

    def _spend(self) -> None:
        self.operations += 1
        if self._fails(self.operations - 1):
            raise self._error

    def write(self, path: Path, data: Content) -> None:
        try:
            self._spend()
        except BaseException:
            assert isinstance(data, ReadableBytes)
            path.write_bytes(data[: len(data) // 2])
            raise
        super().write(path, data)

    def rename(self, source: Path, target: Path) -> None:
        self._spend()
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._spend()
        super().sync_directory(path)

    def remove(self, path: Path) -> None:
        self._spend()
        super().remove(path)


def test_a_committed_checkpoint_and_its_objects_are_read_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    ref = store.objects.put(b"weights")
    assert ref == ObjectRef(hashlib.sha256(b"weights").hexdigest(), 7)
    data = sealed(objects={"base": ref})
    entry = store.commit(name(9), data)
    assert entry.path == tmp_path / "run" / "checkpoints" / name(9)
    again = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert again.entries() == [entry]
    assert again.read(entry) == data
    assert again.manifest(entry).objects == {"base": ref}
    assert again.objects.get(ref) == b"weights"
    assert file_names(tmp_path / "run" / "checkpoints") == {name(9), "objects"}
    assert file_names(tmp_path / "run" / "checkpoints" / "objects") == {ref.file_name}


def test_looking_into_a_store_that_does_not_exist_makes_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.entries() == []
    assert collect_garbage(store) == []
    assert file_names(tmp_path) == set()


def test_entries_are_in_the_order_of_training_whatever_the_clock_says(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for batch, task in ((100, 0), (99, 0), (9, 10), (20, 2)):
        path = store.commit(name(batch, task), sealed()).path
        os.utime(path, (1_000_000_000 - batch, 1_000_000_000 - batch))
    assert [entry.position for entry in store.entries()] == [
        Position(0, 0, 99),
        Position(0, 0, 100),
        Position(2, 0, 20),
        Position(10, 0, 9),
    ]


def test_foreign_and_partial_files_are_not_checkpoints(tmp_path: Path) -> None:
    for foreign in ("notes.txt", "checkpoint.pt", f".{name(1)}.17-ab.partial", name(1) + ".bak"):
        (tmp_path / foreign).write_bytes(b"x")
    assert CheckpointStore(tmp_path).entries() == []


def test_a_commit_replaces_the_checkpoint_of_the_same_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.commit(name(1), sealed(note="old"))
    entry = store.commit(name(1), sealed(note="new"))
    assert store.manifest(entry).settings["note"] == "new"
    assert len(store.entries()) == 1


def test_an_object_is_written_once_and_a_decayed_one_is_written_again(tmp_path: Path) -> None:
    ref = CheckpointStore(tmp_path).objects.put(b"weights")
    path = tmp_path / "objects" / ref.file_name
    before = path.stat()
    store = CheckpointStore(tmp_path)
    store.objects.put(b"weights")
    store.objects.put(b"weights")
    assert path.stat().st_ino == before.st_ino

    path.write_bytes(b"Weights")
    store = CheckpointStore(tmp_path)
    with pytest.raises(CorruptCheckpointError, match="damaged"):
        store.objects.get(ref)
    assert store.objects.put(b"weights") == ref
    assert store.objects.get(ref) == b"weights"


def test_bytes_that_are_put_are_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, hashed = ObjectRef.of, list[bytes]()

    def counted(data: bytes) -> ObjectRef:
        hashed.append(data)
        return of(data)

    monkeypatch.setattr(ObjectRef, "of", counted)
    store = CheckpointStore(tmp_path)
    ref = store.objects.put(b"fisher information")
    assert hashed == [b"fisher information"]
    assert store.objects.get(ref) == b"fisher information"


def test_an_object_found_decayed_late_is_written_again_by_the_same_store(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    ref = store.objects.put(b"weights")
    (tmp_path / "objects" / ref.file_name).write_bytes(b"Weights")
    with pytest.raises(CorruptCheckpointError):
        store.objects.get(ref)
    store.objects.put(b"weights")
    assert store.objects.get(ref) == b"weights"


def test_a_flip_of_any_byte_of_an_object_and_any_truncation_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    content = bytes(range(200))
    ref = store.objects.put(content)
    path = tmp_path / "objects" / ref.file_name
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        for wrong in (bytes(damaged), content[:place]):
            path.write_bytes(wrong)
            with pytest.raises(CorruptCheckpointError):
                store.objects.get(ref)
    path.unlink()
    with pytest.raises(CorruptCheckpointError, match="missing"):
        store.objects.get(ref)


def test_a_symbolic_link_in_objects_is_refused_and_replaced_by_a_put(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")
    store = CheckpointStore(tmp_path / "checkpoints")
    ref = store.objects.put(b"weights")
    path = tmp_path / "checkpoints" / "objects" / ref.file_name
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(CorruptCheckpointError, match="cannot read"):
        store.objects.get(ref)
    with pytest.raises(CheckpointError, match="not in"):
        store.commit(name(1), sealed(objects={"base": ref}))
    store.objects.put(b"weights")
    assert not path.is_symlink()
    assert store.objects.get(ref) == b"weights"


@pytest.mark.parametrize("sha256", ["../../secret", "a" * 63, "A" * 64, "/" * 64, 5])
def test_only_a_digest_names_an_object(sha256: str) -> None:
    with pytest.raises(CorruptCheckpointError, match="is not a SHA-256 digest"):
        ObjectRef(sha256, 1)


def test_a_checkpoint_whose_objects_are_not_there_is_not_committed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match=r"object 'base', .* is not in"):
        store.commit(name(1), sealed(objects={"base": ObjectRef("ab" * 32, 1)}))
    assert store.entries() == []


def test_only_sealed_bytes_under_a_proper_name_are_committed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="is not the name of a checkpoint"):
        store.commit("../checkpoint.pt", sealed())
    with pytest.raises(CorruptCheckpointError):
        store.commit(name(1), b"not sealed")
    assert store.entries() == []


def test_damaged_and_missing_checkpoints_are_told_apart_and_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    entry = store.commit(name(1), sealed())
    entry.path.write_bytes(sealed()[:-1])
    with pytest.raises(CorruptCheckpointError, match=r"checkpoint_task0_epoch0_batch1\.pt: "):
        store.read(entry)
    with pytest.raises(CorruptCheckpointError, match=r"checkpoint_task0_epoch0_batch1\.pt: "):
        store.manifest(entry)
    entry.path.unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"batch1\.pt is missing"):
        store.read(entry)


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, CorruptCheckpointError), (errno.EACCES, CheckpointError)]
)
def test_unreadable_sectors_are_damage_and_lacking_permission_is_not(
    tmp_path: Path, code: int, kind: type[CheckpointError], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    entry = store.commit(name(1), sealed())

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Filesystem, "open", fail)
    with pytest.raises(CheckpointError, match="cannot read") as caught:
        store.read(entry)
    assert type(caught.value) is kind


def test_rotation_keeps_the_last_n_and_the_final_one_of_each_completed_task(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path)
    for task in range(3):
        for batch in (8, 9, 10, 11):
            entry = store.commit(name(batch, task), sealed(task=task))
            rotate(store, entry, 2)
    expected = {name(11, 0), name(11, 1), name(10, 2), name(11, 2)}
    assert {entry.path.name for entry in store.entries()} == expected

    final = store.commit(name(11, 2), sealed(task=2, phase="done"))
    assert rotate(store, final, 2) == []
    assert [entry.path.name for entry in rotate(store, final, 1)] == [name(10, 2)]


def test_rotation_never_deletes_what_was_just_saved_because_of_a_damaged_newer_one(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path)
    store.commit(name(5), sealed())
    store.commit(name(9), sealed()).path.write_bytes(b"damaged")
    entry = store.commit(name(6), sealed(note="went on from 5"))
    rotate(store, entry, 1)
    assert {found.path.name for found in store.entries()} == {name(6), name(9)}


def test_garbage_collection_keeps_shared_objects_and_removes_the_rest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    shared, old, new = (store.objects.put(text) for text in (b"shared", b"old", b"new"))
    first = store.commit(name(1), sealed(objects={"base": shared, "adapter": old}))
    store.commit(name(2), sealed(objects={"base": shared, "adapter": new}))
    (tmp_path / f".{name(3)}.17-ab.partial").write_bytes(b"half")
    (tmp_path / "objects" / ".x.17-ab.partial").write_bytes(b"half")
    (tmp_path / "objects" / "README").write_bytes(b"not ours")
    store.delete([first])
    removed = collect_garbage(store)
    assert len(removed) == 3
    assert file_names(tmp_path) == {name(2), "objects"}
    assert file_names(tmp_path / "objects") == {shared.file_name, new.file_name, "README"}
    assert collect_garbage(store) == []


def test_garbage_collection_spares_objects_that_the_next_commit_will_refer_to(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path)
    ref = store.objects.put(b"adapter")
    assert collect_garbage(store) == []
    store.commit(name(1), sealed(objects={"adapter": ref}))
    assert collect_garbage(CheckpointStore(tmp_path)) == []


@pytest.mark.parametrize("content", [b"damaged", sealed()[:-1]])
def test_garbage_collection_removes_no_object_while_a_manifest_is_unreadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    CheckpointStore(tmp_path).objects.put(b"who needs this?")
    store = CheckpointStore(tmp_path)
    entry = store.commit(name(1), sealed())
    entry.path.write_bytes(content)
    partials = [tmp_path / ".half.partial", tmp_path / "objects" / ".half.partial"]
    for partial in partials:
        partial.write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert collect_garbage(store) == partials
    assert "only unfinished writes are cleaned up" in caplog.text
    assert len(file_names(tmp_path / "objects")) == 1


def test_a_checkpoint_of_a_later_version_blocks_garbage_collection(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).objects.put(b"who needs this?")
    body = sealed()[:-64].replace(b"plora-cl seal 1 ", b"plora-cl seal 2 ")
    later = body + hashlib.sha256(body).hexdigest().encode()
    (tmp_path / name(1)).write_bytes(later)
    store = CheckpointStore(tmp_path)
    assert collect_garbage(store) == []
    with pytest.raises(IncompatibleCheckpointError):
        store.read(store.entries()[0])


class PowerCutError(BaseException):
    """Nothing may catch it."""


def save_over_and_rotate(store: CheckpointStore) -> CheckpointEntry:
    """Commit twice, over an existing name the second time, and remove what is old."""
    objects = {text: store.objects.put(text.encode()) for text in ("base", "new adapter")}
    entry = store.commit(name(2), sealed(note="new", objects=objects))
    rotate(store, entry, 1)
    return entry


def an_older_run(directory: Path) -> None:
    store = CheckpointStore(directory)
    objects = {text: store.objects.put(text.encode()) for text in ("base", "old adapter")}
    store.commit(name(1), sealed(note="older", objects=objects))
    store.commit(name(2), sealed(note="old", objects=objects))


def newest_note(store: CheckpointStore) -> str:
    """Return the content of the newest checkpoint after verifying everything in the store."""
    note = ""
    for entry in store.entries():
        store.read(entry)
        manifest = store.manifest(entry)
        for text, ref in manifest.objects.items():
            assert store.objects.get(ref) == text.encode()
        note = manifest.settings["note"]
    return note


def operations_of_a_save(directory: Path) -> int:
    an_older_run(directory)
    disk = FaultyFilesystem(PowerCutError(), lambda _: False)
    save_over_and_rotate(CheckpointStore(directory, disk))
    return disk.operations


@pytest.mark.fault
def test_being_killed_at_any_operation_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    count = operations_of_a_save(tmp_path / "count")
    assert count > 10
    for operation in range(count):
        directory = tmp_path / str(operation)
        an_older_run(directory)
        disk = FaultyFilesystem(PowerCutError(), operation.__le__)
        with pytest.raises(PowerCutError):
            save_over_and_rotate(CheckpointStore(directory, disk))
        assert newest_note(CheckpointStore(directory)) in ("old", "new")
        survivor = CheckpointStore(directory)
        save_over_and_rotate(survivor)
        collect_garbage(survivor)
        assert newest_note(survivor) == "new"
        assert file_names(directory) == {name(2), "objects"}
        assert len(file_names(directory / "objects")) == 2


@pytest.mark.fault
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_disk_that_refuses_any_operation_is_reported_and_loses_nothing(
    tmp_path: Path, code: int, persistent: bool
) -> None:
    for operation in range(operations_of_a_save(tmp_path / "count")):
        directory = tmp_path / str(operation)
        an_older_run(directory)

        def fails(n: int, at: int = operation) -> bool:
            return n >= at if persistent else n == at

        store = CheckpointStore(
            directory, FaultyFilesystem(OSError(code, os.strerror(code)), fails)
        )
        with pytest.raises(CheckpointError, match=f"cannot write {directory}"):
            save_over_and_rotate(store)
        assert newest_note(CheckpointStore(directory)) in ("old", "new")
        if not persistent:
            assert not list(directory.rglob("*.partial"))
            save_over_and_rotate(store)
            assert newest_note(CheckpointStore(directory)) == "new"


def test_the_error_names_the_file_its_size_and_the_reason(tmp_path: Path) -> None:
    disk = FaultyFilesystem(OSError(errno.ENOSPC, "No space left on device"), lambda _: True)
    data = sealed()
    store = CheckpointStore(tmp_path, disk)
    (tmp_path / "objects").mkdir()
    with pytest.raises(CheckpointError, match=rf"batch1\.pt \({len(data)} bytes\): No space left"):
        store.commit(name(1), data)


def test_objects_behind_a_link_are_read_but_never_written_or_removed(tmp_path: Path) -> None:
    other = CheckpointStore(tmp_path / "other")
    ref = other.objects.put(b"weights")
    other.commit(name(1), sealed(objects={"w": ref}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "objects").symlink_to(other.objects.directory)
    mine = CheckpointStore(tmp_path / "mine")
    assert mine.objects.get(ref) == b"weights"
    with pytest.raises(CheckpointError, match=r"symbolic link.*link the whole folder checkpoints"):
        mine.commit(name(1), sealed(objects={"w": ref}))
    assert collect_garbage(mine) == []
    assert other.objects.get(ref) == b"weights"


def test_the_folder_of_checkpoints_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "disk")
    store = CheckpointStore(tmp_path / "checkpoints")
    store.commit(name(1), sealed(objects={"w": store.objects.put(b"weights")}))
    assert [entry.path.name for entry in CheckpointStore(tmp_path / "disk").entries()] == [name(1)]
