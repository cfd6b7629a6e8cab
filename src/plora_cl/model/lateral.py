"""Lateral connections: a task reads the features of earlier tasks.

Source: Rusu et al. 2016, "Progressive Neural Networks" (arXiv 1606.04671), section 2: a later
column reads the features of the frozen earlier ones through a small adapter network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class LateralConnection(nn.Module):
    """Adds ``g * f([own ; earlier])`` to the pooled features of one task.

    ``f`` is ``Linear(2 hidden -> rank) -> GELU -> Linear(rank -> hidden)``. The scalar gate ``g``
    starts at 0, so that the model first equals the one without the connection, to the bit. ``f``
    starts at random values: the gradient reaches ``g`` at the first step and ``f`` when ``g`` is
    not 0. If both were zero, neither would learn.

    The source connects every layer, concatenates all earlier columns and scales the inputs. This
    connection acts on pooled features, takes the mean of the earlier ones, so that its size does
    not depend on the number of tasks, and its gate scales the output.

    Args:
        hidden: Size of the pooled features.
        rank: Size of the inner layer.
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
