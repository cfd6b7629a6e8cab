"""A reader written from docs/checkpoint-format.md alone understands what the library writes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from checkpoint.components import Learner, capture
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.store import CheckpointStore

SEAL_BYTES = 193


def read_manifest(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    assert hashlib.sha256(data[:-64]).hexdigest().encode() == data[-64:]
    words = data[-SEAL_BYTES:].decode("ascii").split(" ")
    assert words[:4] == ["plora-cl", "seal", "1", "manifest"]
    assert words[7] == "sha256"
    offset, length = int(words[4]), int(words[5])
    content = data[offset : offset + length]
    assert hashlib.sha256(content).hexdigest() == words[6]
    manifest: dict[str, Any] = json.loads(content)
    assert content == json.dumps(manifest, sort_keys=True).encode()
    return manifest


def test_a_reader_written_from_the_document_reads_a_checkpoint(tmp_path: Path) -> None:
    learner = Learner()
    learner.step()
    store = CheckpointStore(tmp_path)
    base = {"weight": torch.arange(6.0).view(2, 3)}
    objects = {"base": store.objects.put(encode_object(base))}
    name = "checkpoint_task1_epoch2_batch2.pt"
    store.commit(name, encode(capture(learner.components(), objects=objects)))

    manifest = read_manifest(tmp_path / name)
    tree = torch.load(tmp_path / name, weights_only=True)
    for key in ("cursor", "trained_tasks", "seed", "objects", "settings", "state_digest"):
        assert manifest[key] == tree[key]
    sha256 = manifest["objects"]["base"]["sha256"]
    path = tmp_path / "objects" / f"{sha256}.safetensors"
    assert path.stat().st_size == manifest["objects"]["base"]["bytes"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert torch.equal(load_file(path)["weight"], base["weight"])


def test_the_archive_is_laid_out_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "any.pt"
    path.write_bytes(encode(capture(Learner().components())))
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        assert len(archive.comment) == SEAL_BYTES
        assert records[0].filename == "archive/data.pkl"
        assert records[-1].filename == "archive/manifest.json"
        assert {record.compress_type for record in records} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("archive/manifest.json")) == read_manifest(path)
