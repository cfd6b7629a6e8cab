"""What a server accepts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server, so that no client takes it down.

    Attributes:
        batch_texts: Most texts predicted together.
        queue_texts: Most texts that wait; a request beyond them is answered with 503.
        request_texts: Most texts in a request.
        text_characters: Longest text.
        body_bytes: Longest request body.
    """

    batch_texts: int = 64
    queue_texts: int = 2048
    request_texts: int = 256
    text_characters: int = 100_000
    body_bytes: int = 4 << 20
