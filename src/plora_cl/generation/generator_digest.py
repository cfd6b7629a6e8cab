"""The bytes that a digest of tensors covers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def tensor_bytes(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[bytes]:
    """Yield name, type, shape and every bit of each of ``tensors``, to be hashed."""
    for name, tensor in tensors:
        yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
        flat = tensor.detach().contiguous().cpu().view(-1)
        yield flat.view(torch.uint8).numpy().tobytes()
