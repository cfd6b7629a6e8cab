"""Tunes a LoRA of a causal language model to write the texts of a task after their prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from transformers import PreTrainedModel

from plora_cl.errors import MethodError, TrainingError
from plora_cl.generation.lora import Lora, fresh_lora
from plora_cl.seeds import derived_seed
from plora_cl.state import StateDict, TensorPart
from plora_cl.units import Unit, Units

_IGNORED = -100
_MAX_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """Hyperparameters of tuning.

    Attributes:
        examples: Number of training texts of a task to tune on, at least 1.
        epochs: Passes over them, at least 1.
        batch_size: Texts per step, at least 1.
        learning_rate: Learning rate of AdamW at the first step, above 0; it decays linearly to 0.
        r: Rank of the LoRA, at least 1.
    """

    examples: int
    epochs: int
    batch_size: int
    learning_rate: float
    r: int


class TuningExample(NamedTuple):
    """A text with the prompts after which the model should write it.

    Attributes:
        text: One line, not empty.
        prompts: Prompts; each epoch uses the next one.
    """

    text: str
    prompts: tuple[str, ...]


class Row(NamedTuple):
    """The tokens of a prompt and of the text after it.

    Attributes:
        ids: Token ids of both.
        prompt_tokens: Number of tokens of the prompt, at least 1; they are not learned.
    """

    ids: list[int]
    prompt_tokens: int


class Tuned(NamedTuple):
    """The result of tuning.

    Attributes:
        lora: The adapter.
        losses: Mean cross-entropy per learned token of each epoch, in nats.
    """

    lora: Lora
    losses: list[float]


class TuningState:
    """The progress of tuning, as a `Stateful`; the tensors of its `state_dict` are live.

    Attributes:
        batches: Number of finished batches.
        losses: Losses of the finished epochs; see `Tuned`.
        loss: Sum of the loss over the learned tokens of the current epoch.
        tokens: Number of these tokens.
    """

    def __init__(self) -> None:
        self.batches, self.tokens, self.loss = 0, 0, 0.0
        self.losses: list[float] = []
        self._matrices: dict[str, Tensor] = {}
        self._optimizer: AdamW | StateDict = {}

    def attach(self, matrices: Mapping[str, torch.nn.Parameter], optimizer: AdamW) -> None:
        """Restore the state into a fresh LoRA and its optimizer, and track both."""
        if self.batches:
            TensorPart(matrices).load_state_dict(self._matrices)
            optimizer.load_state_dict(self._optimizer_state())
        self._matrices = {name: matrix.detach() for name, matrix in matrices.items()}
        self._optimizer = optimizer

    def count(self, loss: float, tokens: int) -> None:
        """Count a finished step with the loss summed over its learned tokens."""
        self.loss, self.tokens = self.loss + loss, self.tokens + tokens
        self.batches += 1

    def end_epoch(self) -> None:
        """Add the mean loss of the epoch to `losses`."""
        self.losses.append(self.loss / self.tokens)
        self.loss, self.tokens = 0.0, 0

    def state_dict(self) -> StateDict:
        """Return the counts, the matrices and the state of their optimizer."""
        return {
            "batches": self.batches,
            "losses": list(self.losses),
            "loss": self.loss,
            "tokens": self.tokens,
            "matrices": dict(self._matrices),
            "optimizer": self._optimizer_state(),
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        self.batches, self.losses = state["batches"], list(state["losses"])
        self.loss, self.tokens = state["loss"], state["tokens"]
        self._matrices, self._optimizer = dict(state["matrices"]), dict(state["optimizer"])

    def _optimizer_state(self) -> StateDict:
        optimizer = self._optimizer
        return optimizer.state_dict() if isinstance(optimizer, AdamW) else optimizer


def tune(
    model: PreTrainedModel,
    examples: Sequence[Sequence[Row]],
    plan: TuningPlan,
    state: TuningState,
    *,
    seed: int,
    what: str,
) -> Units[Tuned]:
    """Return a LoRA that makes the texts of ``examples`` more probable after their prompts.

    A unit is a batch. Between units the LoRA is in the model; in the end, also where the work is
    closed before, the model is as it was, without dropout. The result depends on the arguments
    alone; the process-wide random generators are drawn from at the beginning.

    Args:
        model: With frozen weights, in evaluation mode.
        examples: The rows of each example; each epoch takes the next one.
        plan: Hyperparameters.
        state: Progress to continue from.
        seed: Decides the initial values and the order of the examples.
        what: Name of this work in the units.

    Raises:
        ModelError: The model has no linear layer to adapt.
        MethodError: The loss does not depend on the LoRA.
        TrainingError: The loss is not finite.

    Source: Sun et al. 2020, "LAMOL: LAnguage MOdeling for Lifelong Language Learning", section 3.1
    (a language model learns to generate the examples of a task), with a LoRA for each task in
    place of one model for all, and the loss on the text alone.
    """
    of_epoch = -(-len(examples) // plan.batch_size)
    steps = plan.epochs * of_epoch
    with fresh_lora(model, plan.r, seed=derived_seed(seed, 0)) as matrices:
        parameters = list(matrices.values())
        optimizer = AdamW(parameters, lr=plan.learning_rate, weight_decay=0.0)
        state.attach(matrices, optimizer)
        order: list[Row] = []
        while state.batches < steps:
            epoch, batch = divmod(state.batches, of_epoch)
            if batch == 0 or not order:
                order = _order(examples, epoch, seed)
            rows = order[batch * plan.batch_size : (batch + 1) * plan.batch_size]
            with (
                torch.enable_grad(),
                sdpa_kernel(SDPBackend.MATH),  # fused attention is not deterministic on CUDA
            ):
                summed, learned = _accumulate(model, rows)
            _scale_and_check(parameters, summed, learned, state.batches)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * (1 - state.batches / steps)
            optimizer.step()
            optimizer.zero_grad()
            state.count(summed, learned)
            if batch + 1 == of_epoch:
                state.end_epoch()
            yield Unit(what, state.batches, steps)
        weights = {name: m.detach().to("cpu", copy=True) for name, m in matrices.items()}
    return Tuned(Lora(weights), list(state.losses))


def _order(examples: Sequence[Sequence[Row]], epoch: int, seed: int) -> list[Row]:
    """Return the rows of an epoch in the order of its batches."""
    order = np.random.default_rng(derived_seed(seed, 1, epoch)).permutation(len(examples)).tolist()
    return [examples[index][epoch % len(examples[index])] for index in order]


def _accumulate(model: PreTrainedModel, rows: Sequence[Row]) -> tuple[float, int]:
    """Accumulate the gradient of the summed loss; return the sum and the number of learned tokens.

    Gradients of a sum do not underflow in half precision, as those of a mean would.
    """
    ids, mask, targets = (tensor.to(model.device) for tensor in _padded(rows))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    loss = functional.cross_entropy(
        logits.float().flatten(0, 1),
        targets[:, 1:].flatten(),
        ignore_index=_IGNORED,
        reduction="sum",
    )
    loss.backward()
    return loss.item(), int((targets[:, 1:] != _IGNORED).sum())


def _padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask and targets ``[rows, tokens]``; prompts and padding are ignored."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask, targets = torch.zeros_like(ids), torch.full_like(ids, _IGNORED)
    for line, (tokens, prompt_tokens) in enumerate(rows):
        ids[line, : len(tokens)] = torch.tensor(tokens)
        mask[line, : len(tokens)] = 1
        targets[line, prompt_tokens : len(tokens)] = torch.tensor(tokens[prompt_tokens:])
    return ids, mask, targets


def _scale_and_check(
    parameters: Sequence[torch.nn.Parameter], summed: float, tokens: int, step: int
) -> None:
    """Scale the gradients of the sum to those of the mean, and clip them.

    Raises:
        MethodError: All gradients are zero at the first step.
        TrainingError: A gradient or the loss is not finite.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= tokens
    norm = clip_grad_norm_(parameters, _MAX_GRAD_NORM).item()
    if not (math.isfinite(summed) and math.isfinite(norm)):
        raise TrainingError(
            f"replay: the loss of the generator is {summed / tokens} and its gradient {norm} in "
            f"batch {step} of tuning; lower replay_tuning_learning_rate, or switch tuning off "
            "(replay_tuning: false)"
        )
    if step == 0 and norm == 0:
        raise MethodError(
            "replay: tuning the generator has no effect: the gradient of its loss is zero; choose "
            "another generation_model, or switch tuning off (replay_tuning: false)"
        )
