from __future__ import annotations

import hashlib
import math
import struct
from collections import OrderedDict
from itertools import combinations

import numpy as np
import pytest
import torch

from plora_cl.state_digest import state_digest


def test_the_digest_is_the_documented_merkle_tree() -> None:
    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    tensor = sha(b"tfloat32 2,1\n" + struct.pack("<2f", 1.0, -2.0))
    items = sha(b"l" + sha(b"i-7") + sha(b"f" + struct.pack("<d", 0.5)) + sha(b"n") + sha(b"b1"))
    pairs = sorted([(sha(b"sw"), tensor), (sha(b"i3"), items)])
    expected = sha(b"d" + b"".join(key + value for key, value in pairs)).hex()
    state = {"w": torch.tensor([[1.0], [-2.0]]), 3: [-7, 0.5, None, True]}
    assert state_digest(state) == expected


def test_values_that_compare_equal_but_differ_in_type_or_bits_have_different_digests() -> None:
    nan, other_nan = (struct.unpack("<d", struct.pack("<Q", 0x7FF8 << 48 | n))[0] for n in (0, 1))
    values = [
        *(0, 0.0, -0.0, False, None, "", "0", [], {}, [0], [[0]], {0: 0}, {"0": 0}, [0, 0]),
        *(1, 1.0, True, "1", nan, other_nan, math.inf, -math.inf),
        torch.tensor(0.0),
        torch.tensor(-0.0),
        torch.tensor(0),
        torch.tensor([0.0]),
        torch.tensor([0.0], dtype=torch.bfloat16),
        torch.tensor([0.0], dtype=torch.float16),
        torch.tensor([False]),
        torch.empty(0),
        torch.empty(0, 3),
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(6),
    ]
    for one, other in combinations([state_digest(value) for value in values], 2):
        assert one != other


def test_what_is_the_same_has_the_same_digest() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    assert state_digest({"a": 1, "b": 2}) == state_digest(OrderedDict([("b", 2), ("a", 1)]))
    assert state_digest((1, 2)) == state_digest([1, 2])
    assert state_digest(matrix.t()) == state_digest(matrix.t().contiguous())
    assert state_digest(torch.nn.Parameter(matrix)) == state_digest(matrix)


def test_every_bit_of_a_tensor_counts() -> None:
    tensor = torch.randn(7, generator=torch.Generator().manual_seed(0))
    seen = {state_digest(tensor)}
    for index in range(7):
        for bit in range(32):
            flipped = tensor.clone()
            flipped.view(torch.int32)[index] ^= (1 << bit) if bit < 31 else -(1 << 31)
            seen.add(state_digest(flipped))
    assert len(seen) == 1 + 7 * 32


@pytest.mark.parametrize(
    "value",
    [np.float64(1), np.zeros(2), {1, 2}, b"bytes", object(), torch.eye(2).to_sparse(), 1j],
)
def test_what_no_checkpoint_holds_has_no_digest(value: object) -> None:
    with pytest.raises(TypeError, match="'/optimizer/0/x'"):
        state_digest({"optimizer": [{"x": value}]})
