"""Parts of messages: values in one short line, and the name that was probably meant."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

LONGEST = 80
"""Characters of a value in a message."""

_CLOSE = 0.7
"""Similarity below which names only share parts, such as ``version`` and ``precision``."""

_UNITS = ("B", "kB", "MB", "GB", "TB")
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = LONGEST


def short(value: object) -> str:
    """Return the representation of ``value``, cut to about `LONGEST` characters."""
    return _short.repr(value)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that ``name`` was most likely meant to be, None if none is close."""
    names = {found.casefold(): found for found in valid}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=_CLOSE)
    return names[close[0]] if close else None


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Return ``did you mean X?``, or every valid name where none is close."""
    valid = list(valid)
    meant = nearest(name, valid)
    return f"did you mean {meant}?" if meant else f"there are {', '.join(valid)}"


def half_character(text: str) -> str | None:
    """Return the first half of a surrogate pair in ``text``, which UTF-8 cannot hold, if any."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return None


def kind_of(value: object) -> str:
    """Return the type of ``value`` with its article: ``an int``, ``a dict``."""
    name = type(value).__name__
    return f"a{'n' if name[0] in 'aeioAEIO' else ''} {name}"


def counted(number: int, what: str) -> str:
    """Return ``1 checkpoint``, ``2 checkpoints``.

    Args:
        number: How many.
        what: In the singular; its plural ends in s.
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def shown_bytes(count: float) -> str:
    """Return a number of bytes with a unit, to three digits."""
    unit = 0
    while count >= 999.5 and unit + 1 < len(_UNITS):
        count, unit = count / 1000, unit + 1
    return f"{count:.3g} {_UNITS[unit]}"


def shown_age(seconds: float) -> str:
    """Return an age in its largest whole unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
