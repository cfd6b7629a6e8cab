"""Gradients applied: optimizer, schedule, clipping and mixed precision for one task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers import get_linear_schedule_with_warmup

from plora_cl.compute.devices import Accelerator
from plora_cl.compute.finite import WAY_OUT, StepResult
from plora_cl.data.batches import Batch
from plora_cl.errors import MethodError, TrainingError
from plora_cl.methods.base import MethodStack
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import StateDict

_SMALLEST_SCALE = 1e-4  # where fairseq gives up, too (Ott et al. 2019)


@dataclass(slots=True)
class _Step:
    """An optimizer step of which some batches are done; the parameters hold their gradients."""

    task: int
    loss: Tensor
    replay_loss: Tensor
    examples: int = 0
    replayed: int = 0


class Optimization:
    """AdamW with linear warm-up and decay over one stage.

    Weight decay spares vectors (biases and layer norms), as is usual for transformers.

    As a `Stateful` it is the gradients of an unfinished step: `optimizer` and `scheduler` are
    components of their own.

    Args:
        accelerator: Places batches and scales gradients.
        parameters: What to train, by name.
        learning_rate: Peak rate.
        weight_decay: Decoupled decay of matrices.
        warmup_ratio: Share of ``total_steps`` over which the rate rises, in [0, 1].
        total_steps: Optimizer steps after which the rate is zero.
        max_grad_norm: Gradients are scaled down to this Euclidean norm.
        class_weights: By task in training, the weight of an example of each class, ``[classes]``;
            1 where a task has none.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    def __init__(
        self,
        accelerator: Accelerator,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        warmup_ratio: float,
        total_steps: int,
        max_grad_norm: float,
        class_weights: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        self._accelerator = accelerator
        self._parameters = dict(parameters)
        self._max_grad_norm = max_grad_norm
        self._class_weights = {k: w.to(accelerator.device) for k, w in class_weights.items()}
        self._under_way: _Step | None = None
        matrices = [p for p in parameters.values() if p.ndim > 1]
        vectors = [p for p in parameters.values() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate)
        self.scheduler = get_linear_schedule_with_warmup(
            self.optimizer, round(warmup_ratio * total_steps), total_steps
        )

    def accumulate(
        self,
        model: ContinualClassifier,
        methods: MethodStack,
        batch: Batch,
        *,
        batches_of_step: int,
    ) -> None:
        """Add the gradient of one batch to those of the unfinished step, or begin a step.

        An extra example weighs like one of ``batch``: the mean over an extra batch is scaled by
        its size relative to that of ``batch``. Its classes have no weights: replay draws equal
        shares of them already.

        Args:
            model: What learns.
            methods: May add batches to learn from.
            batch: Of the task in training.
            batches_of_step: Batches over which the loss of this step is averaged.

        Raises:
            MethodError: An extra batch depends on nothing that is trained.

        Source: Sun et al. 2020, "LAMOL", section 3.2: pseudo samples are mixed into those of the
        task and weigh alike.
        """
        model.train()
        if self._under_way is None:
            self.optimizer.zero_grad()
            zero = torch.zeros((), device=self._accelerator.device)
            self._under_way = _Step(batch.task, loss=zero, replay_loss=zero.clone())
        step, examples = self._under_way, len(batch.labels)
        weights = self._class_weights.get(batch.task)
        cost = self._cross_entropy(model, batch, weights) / batches_of_step
        self._accelerator.backward(cost)
        step.loss += cost.detach()
        step.examples += examples
        for extra in methods.draw_extra_batches(batch):
            cost = self._cross_entropy(model, extra)
            if not cost.requires_grad:
                raise MethodError(
                    f"examples of task {extra.task} were brought into training of task "
                    f"{batch.task}, but depend on nothing that is trained now; make something "
                    "shared trainable (`shared`) or use `composition: cumulative`"
                )
            replayed = len(extra.labels)
            self._accelerator.backward(cost * (replayed / examples / batches_of_step))
            step.replay_loss += cost.detach() * replayed
            step.replayed += replayed

    def step(self, model: ContinualClassifier, methods: MethodStack) -> StepResult:
        """Apply what was accumulated, and the penalties of ``methods``.

        With a scaler, a step whose gradients are not finite is skipped and the scale lowered, as
        long as the penalties are finite: those are not computed in fp16.

        Raises:
            MethodError: A penalty cannot have an effect.
            TrainingError: Something is not finite, and no lower scale would help: the weights and
                the optimizer are as they were before the step. Or the learning rate is too large to
                compute with: some weights may have changed.
        """
        assert self._under_way is not None
        done, self._under_way = self._under_way, None
        terms = methods.penalties(model, done.task)
        if terms:
            summands = list(terms.values())
            self._accelerator.backward(sum(summands[1:], summands[0]))
        scaler = self._accelerator.scaler
        scaler.unscale_(self.optimizer)
        norm = float(clip_grad_norm_(self._parameters.values(), self._max_grad_norm))
        result = StepResult(
            loss=done.loss.item(),
            replay_loss=done.replay_loss.item() / done.replayed if done.replayed else None,
            penalties={name: term.item() for name, term in terms.items()},
            gradient_norm=norm,
            learning_rate=float(self.scheduler.get_last_lr()[0]),
            examples=done.examples,
            skipped=scaler.is_enabled() and not math.isfinite(norm) and self._has_overflowed(),
        )
        result.require_finite()
        self._apply(result.learning_rate)
        if not result.skipped:
            self.scheduler.step()
        elif scaler.get_scale() < _SMALLEST_SCALE:
            raise TrainingError(
                f"gradients overflow in fp16 however small their scale is, {scaler.get_scale():g} "
                f"now; the weights are those of the last step that was applied; {WAY_OUT}"
            )
        return result

    def _apply(self, learning_rate: float) -> None:
        try:
            self._accelerator.scaler.step(self.optimizer)
            self._accelerator.scaler.update()
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise TrainingError(
                f"the optimizer cannot compute with a learning rate of {learning_rate:g} "
                f"({error}); nothing was saved after it; {WAY_OUT}"
            ) from error

    def _has_overflowed(self) -> bool:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        return not all(gradient.isfinite().all() for gradient in gradients)

    def _cross_entropy(
        self, model: ContinualClassifier, batch: Batch, weights: Tensor | None = None
    ) -> Tensor:
        batch = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            logits = model(batch.input_ids, batch.attention_mask, batch.task)
        if weights is None:
            return functional.cross_entropy(logits.float(), batch.labels)
        # Not PyTorch's weighted mean: divided by the weights of its own batch, a batch of one class
        # would weigh the same whichever class that is.
        cost = functional.cross_entropy(
            logits.float(), batch.labels, weight=weights, reduction="sum"
        )
        return cost / len(batch.labels)

    def state_dict(self) -> StateDict:
        """Return the gradients and losses of an unfinished step; empty between steps."""
        step = self._under_way
        if step is None:
            return {}
        return {
            "task": step.task,
            "loss": step.loss,
            "examples": step.examples,
            **(
                {"replay_loss": step.replay_loss, "replayed": step.replayed}
                if step.replayed
                else {}
            ),
            "gradients": {name: p.grad for name, p in self._parameters.items()},
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`.

        Raises:
            ValueError: It belongs to other parameters.
        """
        self.optimizer.zero_grad()
        self._under_way = None
        if not state:
            return
        if state["gradients"].keys() != self._parameters.keys():
            raise ValueError("the accumulated gradients belong to other parameters")
        for name, parameter in self._parameters.items():
            gradient = state["gradients"][name]
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        loss = state["loss"].to(self._accelerator.device)
        replay_loss = state.get("replay_loss", torch.zeros(())).to(self._accelerator.device)
        self._under_way = _Step(
            state["task"], loss, replay_loss, state["examples"], state.get("replayed", 0)
        )
