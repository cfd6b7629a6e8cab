"""Numbers of NumPy and PyTorch as Python's own, the only kind that checkpoints hold."""

from __future__ import annotations

import operator
from typing import SupportsFloat, SupportsIndex


def plain_index(name: str, value: SupportsIndex) -> int:
    """Return ``value`` as an int.

    Raises:
        TypeError: It is a bool, or no integer; the message calls it ``name``.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; expected an integer")


def plain_loss(loss: SupportsFloat | None) -> float | None:
    """Return ``loss``, a number or a tensor of one element, as a float.

    Raises:
        TypeError: It is no number, or out of the range of a float.
    """
    item = getattr(loss, "item", None)  # PyTorch warns where float() is given a gradient
    try:
        return None if loss is None else float(loss if item is None else item())
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"loss is {loss!r:.80}; expected one number: {error!s:.80}") from error
