"""A linear head inside the classification heads of transformers, which are not linear.

Those heads compute ``outer(f(inner(x)))`` with ``inner`` as wide as the features, where ``f`` is
tanh or one of the activations of the form ``f(y) = y g(y)`` with ``g(y) + g(-y) = 1`` (ReLU, GELU,
SiLU). A linear head of ``C`` classes fits in exactly, since only its ``C`` logits have to pass:

- ``y = f(y) - f(-y)`` for the second kind: ``inner`` computes each logit and its negative.
- ``tanh(e y) / e`` differs from ``y`` by less than ``(e y)^2 / 3`` of it. Features are the output
  of a layer normalisation, so that logits have a bound, and there is a power of two ``e`` for which
  that is less than an eighth of the rounding of float32. Scaling by it changes no digit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plora_cl.errors import ModelError

_DIFFERENCE = ("relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "silu", "swish")
_TANH = "tanh"
_SMALL = -13  # tanh(y) is y in float32 for |y| <= 2**-13


class StockHead(NamedTuple):
    """Where the head of an architecture is.

    Attributes:
        inner: Path of the first linear layer.
        outer: Path of the second one.
        saved: Paths of the modules that hold both.
        activation: Name of ``f``, or of the entry of the configuration that names it.
    """

    inner: str
    outer: str
    saved: tuple[str, ...]
    activation: str


_IN_CLASSIFIER = StockHead("classifier.dense", "classifier.out_proj", ("classifier",), _TANH)
_DEBERTA = StockHead("pooler.dense", "classifier", ("pooler", "classifier"), "pooler_hidden_act")
STOCK_HEADS = {
    "albert": StockHead("albert.pooler", "classifier", ("albert.pooler", "classifier"), _TANH),
    "bert": StockHead("bert.pooler.dense", "classifier", ("bert.pooler", "classifier"), _TANH),
    "camembert": _IN_CLASSIFIER,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
    "distilbert": StockHead(
        "pre_classifier", "classifier", ("pre_classifier", "classifier"), "relu"
    ),
    "electra": _IN_CLASSIFIER._replace(activation="gelu"),
    "mpnet": _IN_CLASSIFIER,
    "roberta": _IN_CLASSIFIER,
    "xlm-roberta": _IN_CLASSIFIER,
}
"""By ``model_type``. All of them read the first token of a layer-normalised last layer."""


def stock_head(config: Any) -> StockHead:
    """Return the head of an architecture, with its activation.

    Raises:
        ModelError: None is known.
    """
    found = STOCK_HEADS.get(config.model_type)
    if found is None:
        raise ModelError(
            f"no head of transformers for {config.model_type} is known to hold a linear head "
            "exactly; use --format onnx"
        )
    return found._replace(activation=getattr(config, found.activation, found.activation))


def place_head(model: PreTrainedModel, head: nn.Linear, where: StockHead) -> None:
    """Let the classification head of ``model`` compute what ``head`` does.

    Args:
        model: With its encoder filled in.
        head: From features to logits.
        where: The head of its architecture.

    Raises:
        ModelError: The head has too many classes, or another activation.
    """
    inner, outer = model.get_submodule(where.inner), model.get_submodule(where.outer)
    assert isinstance(inner, nn.Linear)
    assert isinstance(outer, nn.Linear)
    classes, room = head.out_features, inner.out_features
    needed = classes if where.activation == _TANH else 2 * classes
    if needed > room:
        raise ModelError(
            f"{classes} classes need {needed} units in {where.inner} of {model.config.model_type}, "
            f"which has {room}; use --format onnx"
        )
    for layer in (inner, outer):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    rows = torch.arange(classes)
    with torch.no_grad():
        if where.activation == _TANH:
            scale = _scale(head, *_largest_norm(model, head.in_features))
            inner.weight[:classes], inner.bias[:classes] = head.weight * scale, head.bias * scale
            outer.weight[rows, rows] = 1 / scale
        elif where.activation in _DIFFERENCE:
            inner.weight[:needed] = torch.cat([head.weight, -head.weight])
            inner.bias[:needed] = torch.cat([head.bias, -head.bias])
            outer.weight[rows, rows] = 1.0
            outer.weight[rows, classes + rows] = -1.0
        else:
            raise ModelError(
                f"the head of this {model.config.model_type} has the activation "
                f"{where.activation!r}, through which no linear head passes exactly; use "
                "--format onnx"
            )


def _largest_norm(model: nn.Module, hidden: int) -> tuple[Tensor, Tensor]:
    """Return the largest gains and offsets ``[hidden]`` of the layer normalisations of a model."""
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.LayerNorm) and m.normalized_shape == (hidden,)
    ]
    gains = torch.stack([norm.weight.abs() for norm in norms]).amax(0)
    return gains, torch.stack([norm.bias.abs() for norm in norms]).amax(0)


def _scale(head: nn.Linear, gains: Tensor, offsets: Tensor) -> float:
    """Return the power of two that brings every possible logit into the linear part of tanh.

    A layer normalisation returns ``g * n + o`` with ``|n| <= sqrt(hidden)`` in the Euclidean norm.
    """
    weight = head.weight.double()
    spread = (weight * gains).norm(dim=1) * math.sqrt(head.in_features)
    bound = spread + weight.abs() @ offsets.double() + head.bias.double().abs()
    return 2.0 ** (_SMALL - math.ceil(math.log2(max(float(bound.max()), 1.0))))
