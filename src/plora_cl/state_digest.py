"""One number for a whole state: equal exactly when every bit of it is equal."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_NUMPY = {torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8}
"""Types that NumPy shares, and that are never lazily conjugated."""


def state_digest(state: Any) -> str:
    """Return the SHA-256 of a nested state, 64 hexadecimal digits.

    A Merkle tree: the digest of a list or a mapping is taken over the digests of what it holds.
    Types are told apart, tuples count as lists, mappings have no order, tensors are their dtype,
    shape and raw little-endian bytes, so that -0.0 differs from 0.0 and every NaN from any other.

    Raises:
        TypeError: Something in it is neither a tensor nor plain; the message names where.
    """
    return _digest(state, "").hex()


def _digest(node: Any, path: str) -> bytes:
    if isinstance(node, Tensor):
        return _tensor_digest(node, path)
    if isinstance(node, Mapping):
        pairs = sorted(
            (_leaf_digest(key, path), _digest(value, f"{path}/{key}"))
            for key, value in node.items()
        )
        return hashlib.sha256(b"d" + b"".join(key + value for key, value in pairs)).digest()
    if isinstance(node, list | tuple):
        items = (_digest(value, f"{path}/{index}") for index, value in enumerate(node))
        return hashlib.sha256(b"l" + b"".join(items)).digest()
    return _leaf_digest(node, path)


def _leaf_digest(leaf: Any, path: str) -> bytes:
    kind = type(leaf)
    if kind is str:
        return _string_digest(leaf)
    if kind is int:
        return hashlib.sha256(b"i%d" % leaf).digest()
    if kind is float:
        return hashlib.sha256(b"f" + struct.pack("<d", leaf)).digest()
    if kind is bool:
        return hashlib.sha256(b"b1" if leaf else b"b0").digest()
    if leaf is None:
        return hashlib.sha256(b"n").digest()
    raise unsupported(leaf, path)


@lru_cache(maxsize=1 << 14)
def _string_digest(text: str) -> bytes:
    return hashlib.sha256(b"s" + text.encode("utf-8", "surrogatepass")).digest()


def _tensor_digest(tensor: Tensor, path: str) -> bytes:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise unsupported(tensor, path)
    digest = hashlib.sha256(_tensor_header(tensor.dtype, tensor.shape))
    is_shared = tensor.dtype in _NUMPY and tensor.device.type == "cpu" and not tensor.is_neg()
    if is_shared and tensor.is_contiguous():
        digest.update(tensor.detach().numpy().data)
    else:
        plain = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


@lru_cache(maxsize=1 << 12)
def _tensor_header(dtype: torch.dtype, shape: torch.Size) -> bytes:
    sizes = ",".join(map(str, shape))
    return f"t{str(dtype).removeprefix('torch.')} {sizes}\n".encode()


def unsupported(value: object, path: str) -> TypeError:
    """Return the error for a ``value`` that no checkpoint can hold, found at ``path``."""
    return TypeError(
        f"the state at {path or '/'!r} is a {type(value).__module__}.{type(value).__qualname__}; "
        "expected a dict, list, str, int, float, bool, None or a dense tensor (NumPy values: "
        "convert with torch.from_numpy or .item())"
    )
