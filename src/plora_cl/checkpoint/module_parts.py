"""The tensors of a user's components: which change, and where they are computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from plora_cl.state import Stateful, TensorPart


def split_module(module: nn.Module) -> tuple[TensorPart, TensorPart]:
    """Return what changes in ``module`` and what does not.

    Returns:
        Parameters with ``requires_grad`` and persistent buffers; and all other parameters. Both
        hold the live tensors, and load in place.
    """
    persistent = module.state_dict().keys()
    parameters = dict(module.named_parameters())
    live: dict[str, Tensor] = {name: p for name, p in parameters.items() if p.requires_grad}
    live |= {name: b for name, b in module.named_buffers() if name in persistent}
    frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
    return TensorPart(live), TensorPart(frozen)


def device_of(parts: Iterable[Stateful]) -> str:
    """Return the device that the run is computed on: the first one that is not the CPU."""
    devices = (tensor.device for part in parts for tensor in _tensors_in(part.state_dict()))
    return str(next((device for device in devices if device.type != "cpu"), torch.device("cpu")))


def _tensors_in(node: object) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping | list | tuple):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _tensors_in(value)
