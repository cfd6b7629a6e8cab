"""Refuses to resume with another language model than the run began with."""

from __future__ import annotations

from collections.abc import Sequence

from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.generation.generator import TextGenerator


class GeneratorIdentity:
    """Remembers which language model was used.

    Args:
        lasting: What was made with a model is of use with that model alone, so that another name
            is no way out either.
    """

    def __init__(self, *, lasting: bool) -> None:
        self.seen: tuple[str, ...] = ()
        self._lasting = lasting

    def require_same(self, generator: TextGenerator) -> None:
        """Make sure that the model is the one of the run.

        Raises:
            IncompatibleCheckpointError: It is another one.
        """
        name, digest = generator.name, generator.weights_digest
        if self.seen[:1] == (name,) and self.seen[1:] not in ((), (digest,)):
            raise IncompatibleCheckpointError(
                f"generation_model: {name!r} has other weights or another vocabulary than when "
                "this run used it first; bring the former model back, or start a new run"
            )
        if self._lasting and self.seen and self.seen[0] != name:
            raise IncompatibleCheckpointError(
                f"generation_model: {name!r} is not {self.seen[0]!r}, which this run tuned for "
                "earlier tasks; bring the former model back, or start a new run"
            )
        self.seen = name, digest

    def load(self, seen: Sequence[str]) -> None:
        """Restore `seen`; the name alone where the weights were not recorded."""
        self.seen = tuple(seen)
