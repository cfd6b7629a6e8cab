"""Independent seeds from one; loads no torch, so that sources and plans can use it at once."""

from __future__ import annotations

import numpy as np


def derived_seed(*key: int) -> int:
    """Return a seed in [0, 2**63) that depends on the whole ``key`` of non-negative integers.

    Different keys of one length, of integers below 2**32, give independent streams, so that what
    one consumer draws never shifts another. Zeros at the end of a key do not count: ``(1, 2)`` and
    ``(1, 2, 0)`` give one seed.
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
