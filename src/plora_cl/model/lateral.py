"""Lateral connections: what earlier tasks see in a text, offered to a later one.

Source: Rusu et al. 2016, "Progressive Neural Networks" (arXiv 1606.04671), section 2: a later
column reads the features of the frozen earlier ones through a small adapter network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


class LateralConnection(nn.Module):
    """Adds ``g * f([own ; earlier])`` to the pooled features of one task.

    ``f`` is ``Linear(2 hidden -> rank) -> GELU -> Linear(rank -> hidden)`` and ``g`` one number, 0
    at first: the model then is the one without the connection, to the bit. ``f`` is not zero, so
    the gradient reaches ``g`` at the first step, and ``f`` as soon as ``g`` has moved. Were both
    zero, neither would ever learn.

    Unlike the source, which connects every layer and concatenates all earlier columns, it acts on
    pooled features alone and takes the mean of the earlier ones, so that its size does not depend
    on the number of tasks; the source scales the features that go in, here the gate scales what
    comes out.

    Args:
        hidden: Size of the pooled features.
        rank: Size of the layer in between.
        generator: Draws the initial values of ``f``.
    """

    def __init__(self, hidden: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = _linear(2 * hidden, rank, generator)
        self.up = _linear(rank, hidden, generator)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, own: Tensor, earlier: Tensor) -> Tensor:
        """Return ``own + g * f([own ; earlier])``, ``[batch, hidden]``.

        Args:
            own: Features of the task, ``[batch, hidden]``.
            earlier: Mean of the features of earlier tasks, ``[batch, hidden]``.
        """
        between = functional.gelu(self.down(torch.cat([own, earlier], -1)))
        correction: Tensor = self.gate * self.up(between)
        return own + correction


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer ``[outputs, inputs]`` with PyTorch's initial weights and bias 0."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    assert isinstance(layer, nn.Linear)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


@contextmanager
def as_at_test_time(module: nn.Module) -> Iterator[None]:
    """Compute with ``module`` without gradients and dropout; leave each mode as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
