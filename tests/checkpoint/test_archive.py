"""Archives written here and by PyTorch itself hold the same."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint.samples import manifest, seal
from plora_cl.checkpoint.format.torch_archive import records_of
from plora_cl.state_digest import state_digest

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.complex128, torch.complex64, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]


def archive_of(tree: dict[str, Any]) -> bytes:
    return seal(b"", manifest(), records_of(tree))


def by_torch(tree: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def read(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_come_back_as_from_torch_save(dtype: torch.dtype) -> None:
    block = torch.arange(12).view(torch.uint8)[:48].view(dtype)
    if dtype is torch.bool:
        block = torch.arange(12) % 2 == 0
    half = len(block) // 2
    tree = {
        "first": block[:half].view(-1, 1),
        "second": [block[half:], block[2]],
        "empty": torch.empty(0, 2, dtype=dtype),
        "alone": block.clone(),
    }
    ours, theirs = read(archive_of(tree)), read(by_torch(tree))
    assert state_digest(ours) == state_digest(theirs) == state_digest(tree)
    same = (
        ours["first"].untyped_storage().data_ptr(),
        ours["second"][1].untyped_storage().data_ptr(),
    )
    assert same[0] == same[1] != ours["alone"].untyped_storage().data_ptr()


def test_plain_values_come_back_as_from_torch_save() -> None:
    tree: dict[Any, Any] = {
        "numbers": [0, 1, -1, 255, 65_536, 2**31, -(2**31) - 1, 2**63, -(10**30)],
        "floats": [0.0, -0.0, 1e-300, float("inf")],
        "others": [None, True, False, "", "text", "\u00e9\U0001f600", "x" * 300],
        3: {"nested": [{}, [], [[]]]},
    }
    data = archive_of(tree)
    assert state_digest(read(data)) == state_digest(read(by_torch(tree))) == state_digest(tree)
    assert data == archive_of(dict(tree.items()))


def test_tensors_can_be_mapped_into_memory(tmp_path: Path) -> None:
    tree = {"odd": torch.arange(3, dtype=torch.uint8), "big": torch.randn(100)}
    (tmp_path / "archive.pt").write_bytes(archive_of(tree))
    mapped = torch.load(tmp_path / "archive.pt", weights_only=True, mmap=True)
    assert state_digest(mapped) == state_digest(tree)
    with zipfile.ZipFile(tmp_path / "archive.pt") as file:
        for record in file.infolist():
            header = file.fp
            assert header is not None
            header.seek(record.header_offset + 28)
            extra = int.from_bytes(header.read(2), "little")
            begin = record.header_offset + 30 + len(record.filename) + extra
            assert begin % 64 == 0
