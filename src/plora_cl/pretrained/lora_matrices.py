"""The A and B matrices of LoRA adapters inside a model, by layer.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

A, B = "lora_A", "lora_B"


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """Return the layers of ``model`` that hold adapters, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def lora_matrices(layers: Mapping[str, LoraLayer], adapter: str) -> dict[str, nn.Parameter]:
    """Return ``<layer>.lora_A [r, in]`` and ``<layer>.lora_B [out, r]`` of an adapter."""
    found: dict[str, nn.Parameter] = {}
    for path, layer in layers.items():
        for kind in (A, B):
            weight = getattr(layer, kind)[adapter].weight
            assert isinstance(weight, nn.Parameter)
            found[f"{path}.{kind}"] = weight
    return found


def draw_a(matrices: Mapping[str, nn.Parameter], generator: torch.Generator) -> None:
    """Give each A matrix the initial values of a linear layer of PyTorch.

    PEFT leaves B at zero, so that a new adapter changes nothing.
    """
    with torch.no_grad():
        for name, matrix in matrices.items():
            if name.endswith(A):
                drawn = torch.empty(matrix.shape)  # on the CPU: the same on every device
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                matrix.copy_(drawn)
