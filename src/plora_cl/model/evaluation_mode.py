"""Evaluation mode for a block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Compute without dropout within the ``with`` block; restore the mode of every part after it.

    Args:
        module: What computes.
        gradients: Record operations for autograd.
    """
    training = [part for part in module.modules() if part.training]
    if training:
        module.eval()
    try:
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for part in training:
            part.training = True
