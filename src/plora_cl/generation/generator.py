"""The interface of a language model that writes texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from plora_cl.generation.lora import Lora
from plora_cl.generation.lora_tuning import Tuned, TuningExample, TuningPlan, TuningState
from plora_cl.units import Units


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
    def weights_digest(self) -> str:
        """SHA-256 of weights and vocabulary alone, whatever the precision it computes in."""
        ...

    @property
    def instruction_tuned(self) -> bool:
        """Whether the model follows requests, rather than going on with a text."""
        ...

    def generate(
        self, prompt: str, *, count: int, seed: int, lora: Lora | None = None
    ) -> Sequence[Generated]:
        """Return ``count`` texts; leaves the process-wide random generators as they were.

        Args:
            prompt: What to go on from, or a request.
            count: At least 1.
            seed: Of the sampling.
            lora: Put into the model for this call.
        """
        ...

    def tune(
        self,
        examples: Sequence[TuningExample],
        plan: TuningPlan,
        state: TuningState,
        *,
        seed: int,
        what: str,
    ) -> Units[Tuned]:
        """Return a LoRA under which ``examples`` are more probable, see `generation.tuning.tune`.

        Leaves the process-wide random generators as they were after each unit, and the model
        after the last one or when it is closed.
        """
        ...

    def release(self) -> None:
        """Give memory back until the model is needed again."""
        ...
