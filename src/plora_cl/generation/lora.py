"""LoRA adapters that are added to a language model for a time and removed again.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from plora_cl.errors import ModelError
from plora_cl.generation.generator_digest import tensors_digest
from plora_cl.pretrained.loading import first_line
from plora_cl.pretrained.lora_matrices import draw_a, lora_layers, lora_matrices
from plora_cl.state import TensorPart

_NAME, _SCALE = "tuned", 2


class Lora:
    """A and B matrices of every linear layer except the output layer.

    The adapter contributes ``2 B A x``. It never writes to the weights of the model, so removing
    it restores the model to the bit.

    Args:
        weights: ``<layer>.lora_A [r, in]`` and ``<layer>.lora_B [out, r]``, float32 on the CPU;
            never changed.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return tensors_digest(sorted(self.weights.items()))

    @contextmanager
    def within(self, model: PreTrainedModel) -> Iterator[None]:
        """Add the adapter to ``model``; draws from the process-wide generators.

        Raises:
            IncompatibleCheckpointError: The adapter was tuned for a model with other layers.
        """
        r = next(len(a) for name, a in self.weights.items() if name.endswith(".lora_A"))
        with _injected(model, r) as matrices:
            TensorPart(matrices).load_state_dict(self.weights)
            yield


@contextmanager
def fresh_lora(model: PreTrainedModel, r: int, *, seed: int) -> Iterator[dict[str, nn.Parameter]]:
    """Yield the matrices of a new LoRA in ``model``: A random, B zero: it has no effect yet.

    Draws from the process-wide generators; the values of A depend only on ``seed``.

    Raises:
        ModelError: The model has no linear layer to adapt.
    """
    with _injected(model, r) as matrices:
        draw_a(matrices, torch.Generator().manual_seed(seed))
        yield matrices


@contextmanager
def _injected(model: PreTrainedModel, r: int) -> Iterator[dict[str, nn.Parameter]]:
    """Yield the trainable matrices of a LoRA in ``model`` by layer; remove it at the end."""
    config = LoraConfig(
        r=r,
        lora_alpha=_SCALE * r,
        lora_dropout=0.0,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        tuner = LoraModel(model, config, _NAME)
    except ValueError as error:
        raise ModelError(
            f"generation_model: no LoRA can be put into a {type(model).__name__}: "
            f"{first_line(error)} Switch tuning off (replay_tuning: false) or choose another "
            "generation_model"
        ) from error
    try:
        cast_adapter_dtype(model, _NAME)  # small steps would be lost in half precision
        yield lora_matrices(lora_layers(model), _NAME)
    finally:
        tuner.unload()
