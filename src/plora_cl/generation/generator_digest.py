"""The digest of a language model, or of an adapter of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def tensors_digest(tensors: Iterable[tuple[str, Tensor]], described: Any = None) -> str:
    """Return a SHA-256 over name, type, shape and every bit of each of ``tensors``.

    Args:
        tensors: In the order in which they count.
        described: What else decides the digest, as JSON; None adds nothing.
    """
    content = hashlib.sha256()
    if described is not None:
        content.update(json.dumps(described, sort_keys=True).encode())
    for name, tensor in tensors:
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().view(-1)
        content.update(flat.view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
