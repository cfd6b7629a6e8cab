from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from checkpoint.samples import archive, manifest, seal, sealed
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import resume_point, verify
from plora_cl.errors import CheckpointNotFoundError

NAMES = [f"checkpoint_task0_epoch0_batch{batch}.pt" for batch in (8, 9, 10)]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Three checkpoints that share one object; each has one of its own."""
    store = CheckpointStore(tmp_path / "checkpoints")
    for name in NAMES:
        objects = {text: store.objects.put(text.encode()) for text in ("base", name)}
        store.commit(name, sealed(note=name, objects=objects))
    return store


def test_what_is_intact_is_read_once(store: CheckpointStore) -> None:
    found = verify(store)
    assert found.is_intact
    assert [verdict.entry.path.name for verdict in found.verdicts] == NAMES
    assert found.objects == 4
    files = sum(entry.path.stat().st_size for entry in store.entries())
    assert found.bytes_read == files + len("base") + sum(map(len, NAMES))
    assert found.resumes_from == store.entries()[-1]
    assert found.unreferenced == {}


def test_every_flipped_byte_of_a_checkpoint_or_an_object_is_found(store: CheckpointStore) -> None:
    newest = store.entries()[-1]
    own = store.objects.path(store.manifest(newest).objects[NAMES[-1]])
    for path in (newest.path, own):
        intact = path.read_bytes()
        for position in range(len(intact)):
            changed = bytearray(intact)
            changed[position] ^= 1 << position % 8
            path.write_bytes(changed)
            assert verify(store, [newest]).verdicts[0].is_damaged
        assert verify(store).resumes_from == store.entries()[1]
        path.write_bytes(intact)
    assert verify(store).is_intact


def test_a_missing_or_longer_object_damages_all_that_need_it(store: CheckpointStore) -> None:
    base = store.objects.path(store.manifest(store.entries()[0]).objects["base"])
    base.write_bytes(b"base and more")
    assert [verdict.is_damaged for verdict in verify(store).verdicts] == [True] * 3
    base.unlink()
    found = verify(store)
    assert [verdict.is_damaged for verdict in found.verdicts] == [True] * 3
    assert found.resumes_from is None


def test_only_the_checkpoint_asked_for_is_read(store: CheckpointStore) -> None:
    entries = store.entries()
    entries[0].path.write_bytes(b"damaged")
    assert verify(store, entries[1:2]).is_intact
    assert not verify(store, entries[:1]).is_intact


def test_what_nothing_refers_to_is_reported(store: CheckpointStore) -> None:
    stray = CheckpointStore(store.directory).objects.put(b"stray")
    partial = store.directory / ".checkpoint.partial"
    partial.write_bytes(b"12")
    found = verify(CheckpointStore(store.directory)).unreferenced
    assert found == {store.objects.path(stray): 5, partial: 2}


def test_what_may_not_be_read_is_no_damage_and_stops_resuming(store: CheckpointStore) -> None:
    class Locked(Filesystem):
        def open(self, path: Path) -> BinaryIO:
            if path.name == NAMES[-1]:
                raise PermissionError(errno.EACCES, "Permission denied")
            return super().open(path)

    found = verify(CheckpointStore(store.directory, Locked()))
    assert not found.is_intact
    assert not found.verdicts[-1].is_damaged
    assert found.resumes_from is None


def test_memory_stays_constant(store: CheckpointStore) -> None:
    longest = 0

    class Watched(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal longest
            data = super().read(size)
            longest = max(longest, len(data))
            return data

    class Watching(Filesystem):
        def open(self, path: Path) -> BinaryIO:
            return Watched(io.FileIO(path))

    big = bytes(5 << 20)
    ref = store.objects.put(big)
    data = seal(archive(b"\x80\x02](" + b"N" * len(big) + b"e."), manifest(objects={"big": ref}))
    store.commit("checkpoint_task1_epoch0_batch0.pt", data)
    assert verify(CheckpointStore(store.directory, Watching())).is_intact
    assert 0 < longest <= 1 << 20


def test_an_intact_file_that_no_run_could_read_is_damage(store: CheckpointStore) -> None:
    data = seal(archive(b"\x80\x02cnumpy\nfloat64\n."), manifest())
    store.commit("checkpoint_task1_epoch0_batch0.pt", data)
    found = verify(store)
    assert found.verdicts[-1].is_damaged
    assert "its pickle names 'numpy float64'" in str(found.verdicts[-1].error)
    assert found.resumes_from == store.entries()[-2]
    assert resume_point(store) == store.entries()[-2]


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Returns what makes a running experiment act once, as soon as the file NAME was verified."""

    def act(name: str, action: Callable[[], object]) -> None:
        def and_then(store: CheckpointStore, entry: CheckpointEntry) -> Manifest:
            found = verified(store, entry)
            if entry.path.name == name:
                monkeypatch.setattr(CheckpointStore, "verify", verified)
                action()
            return found

        verified = CheckpointStore.verify
        monkeypatch.setattr(CheckpointStore, "verify", and_then)

    return act


def test_what_a_run_saves_while_its_folder_is_read_is_verified_too(
    store: CheckpointStore, during: Callable[[str, Callable[[], object]], None]
) -> None:
    def save_twice() -> None:
        for batch in (11, 12):
            store.commit(f"checkpoint_task0_epoch0_batch{batch}.pt", sealed(note=str(batch)))
        store.delete(store.entries()[:3])

    during(NAMES[-1], save_twice)
    found = verify(store)
    assert found.is_intact
    assert found.stops_resuming is None
    assert found.resumes_from == store.entries()[-1]
    assert [verdict.entry.path.name for verdict in found.verdicts][-1] == store.entries()[-1].name


def test_a_checkpoint_that_is_removed_with_its_objects_while_it_is_read_is_not_damaged(
    store: CheckpointStore, during: Callable[[str, Callable[[], object]], None]
) -> None:
    first = store.entries()[0]

    def rotate() -> None:
        store.delete([first])
        collect_garbage(CheckpointStore(store.directory))

    during(NAMES[0], rotate)
    found = verify(store)
    assert found.is_intact
    assert [verdict.entry.path.name for verdict in found.verdicts] == NAMES[1:]
    second = store.entries()[0]

    def rotate_second() -> None:
        store.delete([second])
        collect_garbage(CheckpointStore(store.directory))

    during(NAMES[1], rotate_second)
    with pytest.raises(CheckpointNotFoundError, match="was removed while it was read"):
        verify(store, [second])
