from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint.samples import archive, manifest, read_manifest, seal, sealed
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES, Manifest, ObjectRef
from plora_cl.checkpoint.format.sealed_zip import (
    MANIFEST_RECORD,
    manifest_of,
    open_sealed,
)
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError


def resealed(body: bytes) -> bytes:
    """Return ``body``, everything before the file digest, with a digest that fits."""
    return body + hashlib.sha256(body).hexdigest().encode()


def test_what_was_sealed_is_read_back(tmp_path: Path) -> None:
    original = manifest(note="hello", objects={"base": ObjectRef("ab" * 32, 17)})
    data = seal(archive(), original)
    path = tmp_path / "any.pt"
    path.write_bytes(data)
    assert open_sealed(data) == original
    assert read_manifest(path) == original
    assert read_manifest(path, verify=True) == original


def test_equal_input_gives_equal_bytes() -> None:
    assert sealed(note="a") == sealed(note="a")
    assert sealed(note="a") != sealed(note="b")


def test_any_zip_tool_finds_the_manifest_and_the_original_records() -> None:
    data = seal(archive(b"payload"), manifest())
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.testzip() is None
        assert file.read("archive/data.pkl") == b"payload"
        assert json.loads(file.read(MANIFEST_RECORD))["settings"]["lora_r"] == 8
        assert file.comment.startswith(b"plora-cl seal 1 manifest ")


def test_the_last_64_characters_are_the_digest_of_everything_before_them() -> None:
    data = sealed()
    assert data[-64:].decode() == hashlib.sha256(data[:-64]).hexdigest()


def test_a_flip_of_any_byte_is_refused(tmp_path: Path) -> None:
    data = sealed(note="every byte counts", objects={"base": ObjectRef("ab" * 32, 17)})
    path = tmp_path / "any.pt"
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(CorruptCheckpointError):
            open_sealed(bytes(damaged))
        path.write_bytes(damaged)
        with pytest.raises(CorruptCheckpointError):
            read_manifest(path, verify=True)


def test_the_unverified_manifest_is_right_or_refused_whatever_byte_is_flipped() -> None:
    data = sealed(objects={"base": ObjectRef("ab" * 32, 17)})
    original = open_sealed(data)
    refused = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        try:
            assert manifest_of(io.BytesIO(damaged)) == original
        except CorruptCheckpointError:
            refused += 1
    assert refused > len(original.to_json())


def test_every_truncation_and_extension_is_refused(tmp_path: Path) -> None:
    data = sealed()
    path = tmp_path / "any.pt"
    for length in range(len(data)):
        with pytest.raises(CorruptCheckpointError):
            open_sealed(data[:length])
        path.write_bytes(data[:length])
        for verify in (False, True):
            with pytest.raises(CorruptCheckpointError):
                read_manifest(path, verify=verify)
    for extra in (b"\0", b"a", data):
        with pytest.raises(CorruptCheckpointError):
            open_sealed(data + extra)


def test_a_compressed_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = archive(b"\0" * (64 << 20), zipfile.ZIP_DEFLATED)
    data = seal(bomb, manifest())
    assert len(data) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpointError, match="compressed"):
            open_sealed(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_records_that_claim_the_same_bytes_over_and_over_are_refused() -> None:
    data = sealed(note="x" * 1000)
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as file:
        first = file.infolist()[0]
        file.filelist.extend([first] * 50)
        file._didModify = True  # type: ignore[attr-defined]
    body = buffer.getvalue()[:-64]
    with pytest.raises(CorruptCheckpointError, match="claim more bytes"):
        open_sealed(resealed(body))


def test_a_manifest_as_large_as_the_seal_likes_is_refused_in_bounded_memory(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="at most"):
        seal(archive(), replace(manifest(), settings={"text": "x" * MAX_MANIFEST_BYTES}))

    data = bytearray(seal(archive(bytes(MAX_MANIFEST_BYTES + 2)), manifest()))
    length = data.rindex(b" sha256 ") - 64 - 1 - 10
    for claim in (b"9999999999", b"%010d" % (MAX_MANIFEST_BYTES + 1), b"%010d" % len(data)):
        data[length - 21 : length - 1] = b"0" * 20
        data[length : length + 10] = claim
        path = tmp_path / "bomb.pt"
        path.write_bytes(resealed(bytes(data[:-64])))
        tracemalloc.start()
        try:
            with pytest.raises(CorruptCheckpointError, match="cannot lie at"):
                read_manifest(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 100_000,
        "{}",
        '{"format_version": true}',
        '{"format_version": 1}',
        '{"format_version": 1, "seed": ' + "9" * 10_000 + "}",
    ],
)
def test_a_sealed_manifest_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CorruptCheckpointError):
        Manifest.from_json(text.encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cursor", {"task": 0}),
        ("cursor", {"task": -1, "phase": "train", "epoch": 0, "batch": 0, "step": 0}),
        ("trained_tasks", [1]),
        ("seed", "1"),
        ("loss", "0.5"),
        ("objects", {"base": {"sha256": "../../../../etc/passwd", "bytes": 1}}),
        ("objects", {"base": {"sha256": "AB" * 32, "bytes": 1}}),
        ("objects", {"base": {"sha256": "ab" * 32 + "\n", "bytes": 1}}),
        ("objects", {"base": {"sha256": "ab" * 32, "bytes": -1}}),
        ("objects", {"base": {"sha256": "ab" * 32}}),
        ("objects", {"base": 1}),
        ("settings", []),
        ("state_digest", "xyz"),
    ],
)
def test_a_sealed_manifest_with_a_wrong_field_is_refused(key: str, value: object) -> None:
    plain = json.loads(manifest().to_json())
    Manifest.from_json(json.dumps(plain).encode())
    with pytest.raises(CorruptCheckpointError):
        Manifest.from_json(json.dumps({**plain, key: value}).encode())


def test_keys_of_later_writers_are_ignored_and_later_versions_refused() -> None:
    plain = json.loads(manifest().to_json())
    assert Manifest.from_json(json.dumps({**plain, "lineage": "x"}).encode()) == manifest()
    with pytest.raises(IncompatibleCheckpointError, match="format version 2"):
        Manifest.from_json(json.dumps({**plain, "format_version": 2}).encode())


def test_a_later_seal_is_incompatible_when_intact_and_damaged_when_not() -> None:
    body = sealed()[:-64].replace(b"plora-cl seal 1 ", b"plora-cl seal 2 ")
    with pytest.raises(IncompatibleCheckpointError, match="seal version 2"):
        open_sealed(resealed(body))
    with pytest.raises(CorruptCheckpointError):
        manifest_of(io.BytesIO(body + b"0" * 64))


def test_a_seal_that_points_at_something_else_than_the_manifest_is_refused() -> None:
    other = manifest(note="what the seal shows").to_json()
    data = seal(archive(other), manifest(note="what the archive shows"))
    digest = hashlib.sha256(other).hexdigest()
    head = f"plora-cl seal 1 manifest {data.index(other):020d} {len(other):010d} {digest} sha256 "
    deceiving = resealed(data[: -len(head) - 64] + head.encode())
    assert manifest_of(io.BytesIO(deceiving)).settings["note"] == "what the seal shows"
    with pytest.raises(CorruptCheckpointError, match="is not the sealed manifest"):
        open_sealed(deceiving)


def test_a_manifest_that_was_changed_under_an_intact_seal_is_refused() -> None:
    other = seal(archive(), manifest(note="a"))
    swapped = other.replace(b'"note": "a"', b'"note": "b"')
    assert swapped != other
    with pytest.raises(CorruptCheckpointError, match="damaged"):
        open_sealed(resealed(swapped[:-64]))


def test_a_loss_that_is_not_finite_is_unknown_to_the_manifest() -> None:
    for loss in (float("nan"), float("inf")):
        assert open_sealed(seal(archive(), replace(manifest(), loss=loss))).loss is None


def test_store_and_manifest_work_without_importing_torch_or_numpy(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_task0_epoch0_batch0.pt"
    path.write_bytes(sealed(note="light"))
    program = (
        "import sys; from pathlib import Path\n"
        "from plora_cl.checkpoint.store.store import CheckpointStore\n"
        "path = Path(sys.argv[1])\n"
        "store = CheckpointStore(path.parent)\n"
        "(entry,) = store.entries()\n"
        "assert store.verify(entry).settings['note'] == 'light'\n"
        "assert not {'torch', 'numpy', 'safetensors'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
