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
        text: The cleaned text; may be empty.
        tokens: Number of new tokens, the end token included.
    """

    text: str
    tokens: int


class TextGenerator(Protocol):
    """Generates texts. The result depends only on the generator and the arguments."""

    @property
    def name(self) -> str:
        """Name of the model in the settings."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of everything except the arguments that decides the texts."""
        ...

    @property
    def weights_digest(self) -> str:
        """SHA-256 of weights and vocabulary only; the same for every dtype."""
        ...

    @property
    def instruction_tuned(self) -> bool:
        """Whether the model follows requests; if not, it continues a text."""
        ...

    def generate(
        self, prompt: str, *, count: int, seed: int, lora: Lora | None = None
    ) -> Sequence[Generated]:
        """Return ``count`` texts; the process-wide random generators keep their state.

        Args:
            prompt: Beginning of a text, or a request.
            count: Number of texts, at least 1.
            seed: Seed of the sampling.
            lora: Adapter that acts during this call.
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
        """Tune a LoRA on ``examples``; see `lora_tuning.tune`.

        The process-wide random generators keep their state across each unit. The model has its
        original layers again after the last unit or when the generator is closed.
        """
        ...

    def release(self) -> None:
        """Free the memory of the model until it is needed again."""
        ...
