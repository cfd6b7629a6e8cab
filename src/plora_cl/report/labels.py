"""Names from files, made fit for a page, a drawing and a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LONGEST = 200
NOTHING, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_REPLACEMENT, _ELLIPSIS = "\N{REPLACEMENT CHARACTER}", "\N{HORIZONTAL ELLIPSIS}"


def clean(text: str) -> str:
    """Return ``text`` without characters that steer what shows it, and at most `LONGEST` long.

    Those are control characters, line ends, and marks that turn the direction of writing.
    """
    kept = "".join(c if c.isprintable() else _REPLACEMENT for c in text[: LONGEST + 1])
    return kept if len(kept) <= LONGEST else kept[: LONGEST - 1] + _ELLIPSIS


def short_labels(names: Sequence[str], most: int) -> list[str]:
    """Return ``names`` with at most ``most`` characters, still different from one another.

    Args:
        names: Names; equal ones are told apart, too.
        most: Characters, at least 4.
    """
    cut = [name if len(name) <= most else name[: most - 1] + _ELLIPSIS for name in names]
    often = Counter(cut)
    seen: Counter[str] = Counter()
    labels = []
    for text in cut:
        if often[text] == 1:
            labels.append(text)
            continue
        seen[text] += 1
        mark = f" {seen[text]}"
        labels.append(text.rstrip(_ELLIPSIS)[: most - len(mark) - 1] + _ELLIPSIS + mark)
    return labels


def share(value: float | None) -> str:
    """Return a score in [0, 1] with three digits; a dash where there is none."""
    return NOTHING if value is None or value != value else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Return a difference of scores with its sign; a dash where there is none."""
    if value is None or value != value:
        return NOTHING
    return f"{value + 0.0:+.3f}".replace("-", MINUS)


def number(value: float | None, digits: int = 4) -> str:
    """Return a number to ``digits`` significant digits; a dash where there is none."""
    return NOTHING if value is None or value != value else f"{value:.{digits}g}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
