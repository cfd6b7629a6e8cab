"""Checkpoints that released versions wrote are read by this one."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_safetensors

from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.snapshot.loading import Resumable, newest_usable
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.state_digest import state_digest

FORMAT_1 = Path(__file__).with_name("format1")
EXPECTED: dict[str, Any] = json.loads((FORMAT_1 / "expected.json").read_text(encoding="utf-8"))
STATE_DIGEST = "91c8df6ed590e8c396b1c4bf8be36dde04c08bceca251f1a96af2c461bca6e8d"
NAME = "checkpoint_task1_epoch0_batch2.pt"


@pytest.fixture(scope="module")
def found() -> Resumable:
    found = newest_usable(CheckpointStore(FORMAT_1))
    assert found is not None
    return found


def test_the_files_are_those_that_were_written_then() -> None:
    files = {
        path.relative_to(FORMAT_1).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (FORMAT_1 / NAME, *(FORMAT_1 / "objects").iterdir())
    }
    assert files == EXPECTED["files"]
    assert len(files) == 5


def test_a_checkpoint_of_format_1_is_read_bit_by_bit(found: Resumable) -> None:
    assert found.entry.path.name == NAME
    assert state_digest(found.snapshot.state) == EXPECTED["state_digest"] == STATE_DIGEST
    digests = {name: state_digest(state) for name, state in found.snapshot.state.items()}
    assert digests == EXPECTED["components"]
    for key in ("identity", "settings", "seed"):
        assert getattr(found.snapshot.facts, key) == EXPECTED[key]
    for key in ("cursor", "loss"):
        assert getattr(found.snapshot, key) == EXPECTED[key]
    assert list(found.snapshot.trained_tasks) == EXPECTED["trained_tasks"] == ["animals"]


def test_its_objects_hold_the_values_of_then(found: Resumable) -> None:
    values = {
        name: {key: tensor.flatten()[:3].tolist() for key, tensor in tensors.items()}
        for name, tensors in found.objects.items()
    }
    assert values == EXPECTED["objects"]
    assert values.keys() == {
        "memory/ewc/running",
        "model/adapter-0",
        "model/base",
        "model/head-0",
    }


def test_a_reader_made_from_the_document_alone_finds_the_same() -> None:
    data = (FORMAT_1 / NAME).read_bytes()
    assert hashlib.sha256(data[:-64]).hexdigest().encode() == data[-64:]
    words = data[-193:].split()
    offset, length, digest = int(words[4]), int(words[5]), words[6].decode()
    manifest = data[offset : offset + length]
    assert hashlib.sha256(manifest).hexdigest() == digest
    assert json.loads(manifest)["state_digest"] == STATE_DIGEST
    for ref in json.loads(manifest)["objects"].values():
        content = (FORMAT_1 / "objects" / f"{ref['sha256']}.safetensors").read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (ref["sha256"], ref["bytes"])
        assert load_safetensors(content)
    tree = torch.load(FORMAT_1 / NAME, weights_only=True)
    assert tree["format_version"] == 1
    assert state_digest(tree["state"]) == STATE_DIGEST


def test_what_it_holds_is_still_written_as_it_was_then(found: Resumable) -> None:
    for name, tensors in found.objects.items():
        digest = hashlib.sha256(encode_object(tensors)).hexdigest()
        assert digest == found.snapshot.objects[name].sha256
    then = torch.load(FORMAT_1 / NAME, weights_only=True)
    now = torch.load(io.BytesIO(encode(found.snapshot)), weights_only=True)
    assert state_digest(now) == state_digest(then)
