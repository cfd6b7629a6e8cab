from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoint.components import Holder, Learner, capture
from plora_cl.checkpoint.format.inspection import (
    TensorInfo,
    object_tensors,
    read_content,
    tensors_in,
)
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.errors import CorruptCheckpointError

DTYPES = [
    dtype
    for name in dir(torch)
    if isinstance(dtype := getattr(torch, name), torch.dtype)
    and str(dtype) == f"torch.{name}"
    and not any(odd in name for odd in ("q", "bits", "chalf", "complex32", "float4"))
    and name.lstrip("uint") not in "1234567"
]  # fmt: skip


def described(node: Any) -> Any:
    if isinstance(node, Tensor):
        return TensorInfo(str(node.dtype)[6:], tuple(node.shape), node.nbytes)
    if isinstance(node, Mapping):
        return {key: described(value) for key, value in node.items()}
    return [described(value) for value in node] if isinstance(node, list) else node


def test_what_is_read_without_pytorch_is_what_pytorch_reads() -> None:
    learner = Learner()
    learner.step()
    data = encode(capture(learner.components()))
    state = read_content(io.BytesIO(data))["state"]
    assert state == described(decode(data).state)
    assert tensors_in(state["model"])["0.weight"] == TensorInfo("float32", (4, 5), 80)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_known(dtype: torch.dtype) -> None:
    state = {"t": torch.zeros(3, 2).to(dtype), "scalar": torch.zeros(()).to(dtype)}
    data = encode(capture({"holder": Holder(state)}))
    assert read_content(io.BytesIO(data))["state"]["holder"]["value"] == described(state)


def test_the_tensors_of_an_object_are_described_as_pytorch_sees_them() -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.int64), "c": torch.ones(())}
    tensors["d"] = torch.zeros(2, dtype=torch.bfloat16)
    tensors["e"] = torch.zeros(2, dtype=torch.bool)
    found = object_tensors(io.BytesIO(encode_object(tensors)))
    assert found == {name: described(tensor) for name, tensor in tensors.items()}


def archive(pickled: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
    return buffer


class Touch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_executed(tmp_path: Path, protocol: int) -> None:
    pickled = pickle.dumps({"state": {"x": Touch(tmp_path / "ran")}}, protocol)
    with pytest.raises(CorruptCheckpointError):
        read_content(archive(pickled))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps({"state": {"x": bytearray(3)}}, 2),
        pickle.dumps({"state": {}, "x": b"bytes"}, 4),
        pickle.dumps(OrderedDict(), 2),
        pickle.dumps([1], 2),
        pickle.dumps({"state": 1}, 2),
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x02}q\x00(X\x05\x00\x00\x00stateq\x01h\x00u.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02(((",
        b"",
    ],
)
def test_what_no_checkpoint_contains_is_refused(pickled: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        read_content(archive(pickled))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}"[:1],
     b'\x0a\0\0\0\0\0\0\0{"a": {} }', (50_000).to_bytes(8, "little") + b"[" * 50_000],
)  # fmt: skip
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        object_tensors(io.BytesIO(data))
