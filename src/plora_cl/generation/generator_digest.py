"""What tells tensors of a language model apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Hash(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all of them."""
        ...


def add_tensors(content: Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add names, kinds, shapes and every bit of ``tensors``, in their order."""
    for name, tensor in tensors.items():
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().view(-1)
        content.update(flat.view(torch.uint8).numpy().tobytes())
