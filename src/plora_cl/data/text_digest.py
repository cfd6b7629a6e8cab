"""Short digests of texts, to compare texts without holding them in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

TEXT_DIGEST_BYTES = 16


def text_digest(text: str) -> bytes:
    """Return the digest of ``text``, `TEXT_DIGEST_BYTES` bytes."""
    return hashlib.blake2b(text.encode(), digest_size=TEXT_DIGEST_BYTES).digest()


def text_hashes(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the first 8 bytes of the `text_digest` of each text, ``[texts]``."""
    hashes = (int.from_bytes(text_digest(text)[:8], "little") for text in texts)
    return np.fromiter(hashes, dtype=np.uint64)
