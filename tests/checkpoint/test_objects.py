from __future__ import annotations

import json
import struct

import pytest
import safetensors.torch
import torch

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.tensor_object import decode_object, encode_object, object_ref
from plora_cl.errors import CorruptCheckpointError


def test_tensors_of_every_kind_are_read_back_bit_by_bit() -> None:
    tensors = {
        "matrix": torch.randn(3, 4),
        "half": torch.randn(3).to(torch.bfloat16),
        "counts": torch.tensor([-1, 2]),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }
    found = decode_object(encode_object(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_equal_tensors_give_equal_bytes_in_any_order() -> None:
    names = [f"layer{index}" for index in range(40)]
    tensors = {name: torch.full((2,), float(index)) for index, name in enumerate(names)}
    backwards = dict(reversed(list(tensors.items())))
    assert encode_object(tensors) == encode_object(backwards)


def test_views_parameters_and_tied_tensors_are_stored_by_value() -> None:
    block = torch.arange(12.0)
    tied = torch.nn.Parameter(torch.ones(2))
    tensors = {"view": block[2:6], "column": block.view(3, 4)[:, 1], "a": tied, "b": tied}
    found = decode_object(encode_object(tensors))
    assert found["view"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert found["column"].tolist() == [1.0, 5.0, 9.0]
    assert torch.equal(found["a"], found["b"])
    assert not found["a"].requires_grad
    same = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    assert encode_object(tensors) == encode_object(same)


def test_the_digest_is_known_without_making_the_bytes_and_they_are_those_of_the_library() -> None:
    tensors = {
        "\u00e9 b": torch.randn(3, 4),
        "a": torch.randn(2).double(),
        "half": torch.randn(5).to(torch.bfloat16),
        "empty": torch.empty(0, 3),
    }
    data = encode_object(tensors)
    assert data == safetensors.torch.save(tensors)
    assert object_ref(tensors) == ObjectRef.of(data)


def test_a_type_that_the_format_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"wide is a tensor of torch\.complex128"):
        encode_object({"wide": torch.zeros(1, dtype=torch.complex128)})


def test_no_tensors_are_an_object_too() -> None:
    assert decode_object(encode_object({})) == {}


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\xff" * 64, b"\0" * 8, b"PK\x03\x04" * 9])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptCheckpointError, match="not a safetensors file"):
        decode_object(data)


@pytest.mark.parametrize("size", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_sizes_that_cannot_be_are_refused(size: int) -> None:
    shape = [size] if size == 1 << 40 else [0, size]
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    with pytest.raises(CorruptCheckpointError, match="not a safetensors file"):
        decode_object(struct.pack("<Q", len(header)) + header)
