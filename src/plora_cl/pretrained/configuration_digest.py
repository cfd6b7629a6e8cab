"""The digest of what a pretrained model computes with, apart from its weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import nn


def configuration_digest(model: nn.Module) -> str:
    """Return the SHA-256 of the configuration that a model computes with.

    Its origin and the version of the library that wrote it are excluded.

    Args:
        model: Model of transformers.
    """
    config: Any = model.config
    plain = {
        **config.to_dict(),
        "attention": config._attn_implementation,
        "dtype": str(next(model.parameters()).dtype),
    }
    for name in ("_name_or_path", "architectures", "torch_dtype", "transformers_version"):
        plain.pop(name, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
