"""What one optimizer step reports, and whether it may be applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plora_cl.errors import TrainingError
from plora_cl.state import StateDict

WAY_OUT = (
    "resuming unchanged fails at the same step: lower learning_rate or the strength of a penalty "
    "and use --resume auto --accept-changes, from an earlier checkpoint if need be "
    "(--resume PATH); with fp16 or bf16, try --precision fp32 (in Python: resume='auto' or a path, "
    "accept_changes=True, precision='fp32')"
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step reports.

    Attributes:
        loss: Cross-entropy of the task in training, averaged over the batches of the step; with
            class weights the weighted one.
        replay_loss: Cross-entropy, averaged over the further examples that methods brought in; None
            without any.
        penalties: Weighted penalty of each method that had one.
        gradient_norm: Euclidean norm before clipping.
        learning_rate: The rate that was applied.
        examples: Examples of the task in training.
        skipped: The gradients overflowed in fp16, so that nothing was applied; losses and norm
            need not be finite then.
    """

    loss: float
    replay_loss: float | None
    penalties: Mapping[str, float]
    gradient_norm: float
    learning_rate: float
    examples: int
    skipped: bool = False

    def record(self) -> StateDict:
        """Return what the run log holds of the step, None for what is not finite."""
        return {
            "loss": _finite(self.loss),
            **({} if self.replay_loss is None else {"replay_loss": _finite(self.replay_loss)}),
            "penalties": dict(self.penalties),
            "gradient_norm": _finite(self.gradient_norm),
            "learning_rate": self.learning_rate,
            **({"skipped": True} if self.skipped else {}),
        }

    def require_finite(self) -> None:
        """Make sure that the step may be applied; of one that is skipped the penalties alone count.

        Raises:
            TrainingError: A number is not finite; the message names all that are not.
        """
        numbers = {f"the penalty of {name}": value for name, value in self.penalties.items()}
        if not self.skipped:
            losses = {"the loss": self.loss, "the replay loss": self.replay_loss or 0.0}
            numbers = {**losses, **numbers, "the norm of the gradient": self.gradient_norm}
        broken = [
            f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)
        ]
        if broken:
            raise TrainingError(
                f"{', '.join(broken)}; the step was not applied, the weights are those before it; "
                f"{WAY_OUT}"
            )


def require_finite_weights(weights: Mapping[str, Tensor]) -> None:
    """Make sure that the step that was just applied may be saved.

    Raises:
        TrainingError: A weight is not finite; the message names the first tensor that holds one.
    """
    if not weights:
        return
    finite = torch.stack([tensor.detach().isfinite().all() for tensor in weights.values()])
    broken = [name for name, good in zip(weights, finite.tolist(), strict=True) if not good]
    if broken:
        raise TrainingError(
            f"{len(broken)} of {len(weights)} tensors of weights are not finite after it, the "
            f"first is {broken[0]}; nothing was saved after it; {WAY_OUT}"
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
