"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Return ``1 checkpoint``, ``2 checkpoints``.

    Args:
        number: How many.
        what: In the singular; its plural ends in s.
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
