from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoint.components import Holder, capture
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.snapshot.loading import load, newest_usable
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    IncompatibleCheckpointError,
)

BASE = {"weight": torch.arange(4.0)}


def adapter(batch: int) -> dict[str, Tensor]:
    return {"lora_A": torch.full((2, 3), float(batch))}


def save(store: CheckpointStore, batch: int) -> CheckpointEntry:
    objects = {
        "base": store.objects.put(encode_object(BASE)),
        "adapter-0": store.objects.put(encode_object(adapter(batch))),
    }
    snapshot = capture({"model": Holder(batch)}, objects=objects)
    return store.commit(checkpoint_name(0, 0, batch), encode(snapshot))


def object_path(store: CheckpointStore, tensors: dict[str, Tensor]) -> Path:
    return store.directory / "objects" / ObjectRef.of(encode_object(tensors)).file_name


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints")
    for batch in (99, 100):
        save(store, batch)
    return store


def test_nothing_to_resume_from_is_none(tmp_path: Path) -> None:
    assert newest_usable(CheckpointStore(tmp_path)) is None


def test_the_newest_is_taken_with_the_tensors_it_refers_to(store: CheckpointStore) -> None:
    found = newest_usable(store)
    assert found is not None
    assert found.entry.path.name == checkpoint_name(0, 0, 100)
    assert found.snapshot.state == {"model": {"value": 100}}
    assert torch.equal(found.objects["base"]["weight"], BASE["weight"])
    assert torch.equal(found.objects["adapter-0"]["lora_A"], adapter(100)["lora_A"])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, flip, empty, zero, Path.unlink])
@pytest.mark.parametrize("what", ["checkpoint", "object"])
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(
    store: CheckpointStore,
    what: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    newest = store.entries()[-1].path
    damage(newest if what == "checkpoint" else object_path(store, adapter(100)))
    with caplog.at_level(logging.WARNING):
        found = newest_usable(store)
    assert found is not None
    assert found.entry.path.name == checkpoint_name(0, 0, 99)
    if newest.exists():
        assert "skipping a damaged checkpoint" in caplog.text
        assert str(newest) in caplog.text


def test_when_every_checkpoint_is_damaged_all_are_listed(store: CheckpointStore) -> None:
    flip(object_path(store, BASE))
    with pytest.raises(CorruptCheckpointError, match=r"batch100\.pt: object base.*batch99\.pt"):
        newest_usable(store)


def test_objects_that_are_known_are_neither_read_nor_returned(store: CheckpointStore) -> None:
    object_path(store, BASE).unlink()
    known = {ObjectRef.of(encode_object(BASE)).sha256}
    found = newest_usable(store, is_known=known.__contains__)
    assert found is not None
    assert found.objects.keys() == {"adapter-0"}


def test_an_object_that_is_intact_but_no_tensors_is_damage(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    snapshot = capture({}, objects={"base": store.objects.put(b"intact nonsense")})
    entry = store.commit(checkpoint_name(0, 0, 0), encode(snapshot))
    with pytest.raises(CorruptCheckpointError, match="object base: not a safetensors file"):
        load(store, entry)


def test_a_checkpoint_of_a_later_version_stops_the_run_instead_of_being_skipped(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plora_cl.checkpoint.snapshot.codec.FORMAT_VERSION", 2)
    save(store, 101)
    with pytest.raises(IncompatibleCheckpointError, match=r"batch101\.pt: format version 2"):
        newest_usable(store)


def test_a_checkpoint_asked_for_by_path_is_loaded_or_refused(store: CheckpointStore) -> None:
    entry = CheckpointEntry.at(store.directory / checkpoint_name(0, 0, 99))
    assert load(store, entry).snapshot.state == {"model": {"value": 99}}
    missing = CheckpointEntry.at(store.directory / checkpoint_name(0, 0, 1))
    with pytest.raises(CheckpointNotFoundError, match=r"batch1\.pt is missing"):
        load(store, missing)
    with pytest.raises(CheckpointNotFoundError, match="not the name of a checkpoint"):
        CheckpointEntry.at(store.directory / "latest.pt")
