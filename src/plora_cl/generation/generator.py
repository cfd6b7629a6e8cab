"""The interface of a language model that writes texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Generated(NamedTuple):
    """A text that a language model wrote.

    Attributes:
        text: Cleaned, perhaps empty.
        tokens: New tokens it took, the one that ended it included.
    """

    text: str
    tokens: int


class TextGenerator(Protocol):
    """Writes texts on request; what it writes depends on itself and the arguments alone."""

    @property
    def name(self) -> str:
        """What the user calls the model."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides, beside the arguments, what is written."""
        ...

    @property
    def instruction_tuned(self) -> bool:
        """Whether the model follows requests, rather than going on with a text."""
        ...

    def generate(self, prompt: str, *, count: int, seed: int) -> Sequence[Generated]:
        """Return ``count`` texts; leaves the process-wide random generators as they were."""
        ...

    def release(self) -> None:
        """Give memory back until the next call of `generate`."""
        ...
