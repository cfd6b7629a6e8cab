"""What a fork of a checkpoint refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from checkpoint.components import Holder, Plain, capture
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.bundle import export_bundle
from plora_cl.checkpoint.tools.fork import fork
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
