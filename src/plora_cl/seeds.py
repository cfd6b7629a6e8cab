"""Independent seeds from one; loads no torch, so that sources and plans can use it at once."""

from __future__ import annotations

import numpy as np


def derived_seed(*key: int) -> int:
    """Return a seed in [0, 2**63) that depends on the whole ``key`` of non-negative integers.

    Distinct keys give independent streams, so that what one consumer draws never shifts another.
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
