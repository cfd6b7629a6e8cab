"""Clean-up of generated texts, and digests to compare them."""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 16

_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d"}


def cleaned(written: str) -> str:
    r"""Return the first paragraph in one line; may be empty.

    A first paragraph that ends with a colon announces the text and is skipped. Quotation marks
    around the whole text are removed.
    """
    paragraphs = [" ".join(part.split()) for part in written.strip().split("\n\n")]
    found = [part for part in paragraphs if part]
    if len(found) > 1 and found[0].endswith(":"):
        found = found[1:]
    text = found[0] if found else ""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def in_one_line(text: str) -> str:
    """Return a text without line breaks, so that `cleaned` keeps all of it."""
    return " ".join(text.split())


def normalised_digest(text: str) -> bytes:
    """Return `DIGEST_BYTES` bytes, equal for texts that differ only in case and white space."""
    normalised = " ".join(text.casefold().split())
    return hashlib.blake2b(normalised.encode(), digest_size=DIGEST_BYTES).digest()
