"""Sizes as people write them: 500 MB, 2GiB or a plain number of bytes."""

from __future__ import annotations

import re

_PREFIXES = "kmgt"
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?(?:([kmgt])(i?))?b?", re.IGNORECASE)


def as_bytes(value: object) -> object:
    """Return the bytes that a text such as ``500 MB`` means; anything but text as it is.

    Decimal prefixes count in thousands (kB, MB, GB, TB), binary ones in 1024 (KiB, MiB, GiB, TiB).

    Raises:
        ValueError: The text is not a size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r}; expected a size, for instance 500 MB, 2 GiB or 1000000")
    number, prefix, binary = match.groups()
    power = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
    factor: int = (1024 if binary else 1000) ** power
    return int(number) * factor if number.isdigit() else round(float(number) * factor)
