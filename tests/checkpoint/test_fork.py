"""What a fork of a checkpoint refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from checkpoint.components import Holder, Plain, capture
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.bundle import export_bundle
from plora_cl.checkpoint.tools.fork import fork
from plora_cl.checkpoint.tools.verification import verify
from plora_cl.errors import CorruptCheckpointError
from plora_cl.state import Stateful

NAME = "checkpoint_task1_epoch2_batch2.pt"


def make_checkpoint(folder: Path, parts: Mapping[str, Stateful]) -> CheckpointEntry:
    store = CheckpointStore(folder / "checkpoints")
    refs = {"base": store.objects.put(b"base")}
    parts = {"model": Holder(torch.arange(5.0)), **parts}
    return store.commit(NAME, encode(capture(parts, objects=refs)))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "no position in the run log"),
        ({"run_log": Plain({"sha256": "0" * 64})}, "not a number of bytes and a digest"),
        ({"run_log": Plain({"bytes": 0})}, "not a number of bytes and a digest"),
        ({"run_log": Plain({"bytes": -1, "sha256": ""})}, "not a number of bytes and a digest"),
    ],
)
def test_a_checkpoint_without_a_position_in_the_run_log_is_refused_and_nothing_is_made(
    tmp_path: Path, parts: dict[str, Stateful], said: str
) -> None:
    source = make_checkpoint(tmp_path / "a", parts)
    with pytest.raises(CorruptCheckpointError, match=rf"batch2\.pt: .*{said}"):
        fork(source, tmp_path / "b", settings={}, accepted=[], config="")
    with pytest.raises(CorruptCheckpointError, match=rf"batch2\.pt: .*{said}"):
        export_bundle(source, tmp_path / "b", config="")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_fork_is_of_what_was_read_although_the_parent_saves_again_meanwhile(
    tmp_path: Path,
) -> None:
    run_log = Plain({"bytes": 0, "sha256": hashlib.sha256().hexdigest()})
    source = make_checkpoint(tmp_path / "a", {"run_log": run_log})
    before = source.path.read_bytes()

    class SavesMeanwhile(Filesystem):
        def open(self, path: Path) -> BinaryIO:
            file = super().open(path)
            if path == source.path and path.read_bytes() == before:
                store = CheckpointStore(path.parent)
                refs = {"base": store.objects.put(b"another")}
                store.commit(NAME, encode(capture({"run_log": run_log}, objects=refs)))
            return file

    disk = SavesMeanwhile()
    forked = fork(
        source, tmp_path / "b", settings={}, accepted=[], config="", filesystem=disk
    ).entry
    assert source.path.read_bytes() != before
    assert forked.path.read_bytes() == before
    assert verify(CheckpointStore(forked.path.parent)).is_intact
