"""The weights that predict one task, without the machinery that learned them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plora_cl.model.classifier import ContinualClassifier
from plora_cl.pretrained.lora_matrices import A, B

_SHARED = "shared_lora."


@dataclass(frozen=True, slots=True)
class Lora:
    """One adapter that contributes as much as all that act for a task.

    Adapters of the same scale are one adapter of the sum of their ranks, exactly.

    Attributes:
        a: A matrices ``[rank, in]``, by layer.
        b: B matrices ``[out, rank]``, by layer.
        rank: Sum of the ranks.
        scale: Contributions are ``scale * B A x``.
    """

    a: Mapping[str, Tensor]
    b: Mapping[str, Tensor]
    rank: int
    scale: float


@dataclass(frozen=True, slots=True)
class TaskWeights:
    """What predicts one task; see `ContinualClassifier.represent` for a lateral connection.

    Attributes:
        encoder: Weights of the encoder without adapters, by name; shared ones as they are now.
        shared: Names of the weights that training changed.
        lora: The adapters of the task; None without any.
        head: From features to logits.
        has_lateral: Whether earlier tasks contribute, which no stock model computes.
    """

    encoder: Mapping[str, Tensor]
    shared: tuple[str, ...]
    lora: Lora | None
    head: nn.Linear
    has_lateral: bool

    def merged(self) -> dict[str, Tensor]:
        """Return the weights of an encoder that computes the same without adapters."""
        weights = dict(self.encoder)
        if self.lora is not None:
            for layer, a in self.lora.a.items():
                change = self.lora.scale * (self.lora.b[layer].double() @ a.double())
                before = weights[f"{layer}.weight"]
                weights[f"{layer}.weight"] = (before.double() + change).to(before.dtype)
        return weights


def task_weights(model: ContinualClassifier, task: int) -> TaskWeights:
    """Return copies of the weights that predict ``task``, on the CPU."""
    shared = model.shared_parameters()
    of_encoder = {n: p for n, p in shared.items() if not n.startswith(_SHARED)}
    head = model.heads[task]
    assert isinstance(head, nn.Linear)
    return TaskWeights(
        encoder=_copies({**model.adapted.base(), **of_encoder}),
        shared=tuple(of_encoder),
        lora=_adapters(model, task),
        head=_linear(head),
        has_lateral=str(task) in model.laterals,
    )


def _adapters(model: ContinualClassifier, task: int) -> Lora | None:
    bank = model.adapters
    acting: list[Mapping[str, Tensor]] = [bank.parameters(k) for k in model.adapters_for(task)]
    if bank.has_shared:
        named = bank.shared_parameters().items()
        acting.insert(0, {name.removeprefix(_SHARED): matrix for name, matrix in named})
    if not acting:
        return None
    matrices = [_copies(one) for one in acting]
    layers = [name.removesuffix(f".{A}") for name in matrices[0] if name.endswith(A)]
    a = {n: torch.cat([one[f"{n}.{A}"] for one in matrices], 0) for n in layers}
    b = {n: torch.cat([one[f"{n}.{B}"] for one in matrices], 1) for n in layers}
    return Lora(a, b, rank=len(next(iter(a.values()))), scale=bank.scale)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _linear(layer: nn.Linear) -> nn.Linear:
    copy = nn.Linear(layer.in_features, layer.out_features)
    copy.load_state_dict(_copies(dict(layer.named_parameters())))
    return copy.requires_grad_(False)


def fill(module: Any, weights: Mapping[str, Tensor]) -> None:
    """Load ``weights`` into an encoder; it has to take all of them but its own constants.

    Raises:
        RuntimeError: A weight of the module is missing, or has another shape.
    """
    wanted = module.state_dict()
    optional = {name for name in wanted if name.startswith("pooler.")}
    found = {name: weights[name] for name in wanted if name in weights}
    missing = wanted.keys() - found.keys() - optional
    if missing:
        raise RuntimeError(f"no weights for {sorted(missing)}")
    module.load_state_dict(found, strict=False)
