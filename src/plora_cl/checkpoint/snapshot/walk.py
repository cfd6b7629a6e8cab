"""Nested states without their tensors, and what in them cannot be saved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from plora_cl.state_digest import unsupported

_Slot: TypeAlias = tuple[Any, str | int]
_OF_BITS = re.compile(r"torch\.u?int[1-7]")  # PyTorch has names for these, and no operations
_LEAVES = frozenset({str, int, float, bool, type(None)})
_KEYS = frozenset({str, int})


def walked(state: Mapping[str, Any]) -> tuple[Any, list[_Slot], list[Tensor]]:
    """Return a copy of ``state`` without its tensors, their places in the copy, and the tensors.

    Raises:
        TypeError: Something in it is neither a tensor nor plain; the message names where.
    """
    slots: list[_Slot] = []
    sources: list[Tensor] = []
    try:
        return _walk(state, slots, sources), slots, sources
    except _UnsupportedError:
        raise next(refusals(state)) from None


class _UnsupportedError(Exception):
    """Says that, not where, something cannot be saved: so the walk need not keep its path."""


def _walk(node: Any, slots: list[_Slot], sources: list[Tensor]) -> Any:
    kind = type(node)
    if kind in _LEAVES:
        return node
    if kind is dict or isinstance(node, Mapping):
        mapping: dict[str | int, Any] = {}
        for key, value in node.items():
            if type(key) not in _KEYS:
                raise _UnsupportedError
            # No call for the two most frequent kinds: this is what the stall of a save consists of
            if type(value) in _LEAVES:
                mapping[key] = value
            elif isinstance(value, Tensor):
                mapping[key] = None  # keeps the order of keys
                slots.append((mapping, key))
                sources.append(value)
            else:
                mapping[key] = _walk(value, slots, sources)
        return mapping
    if isinstance(node, list | tuple):
        items: list[Any] = [None] * len(node)
        for index, value in enumerate(node):
            if isinstance(value, Tensor):
                slots.append((items, index))
                sources.append(value)
            else:
                items[index] = _walk(value, slots, sources)
        return items
    raise _UnsupportedError


def refusals(node: Any, path: str = "") -> Iterator[TypeError]:
    """Yield the error for each thing in ``node`` that cannot be saved."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if type(key) not in _KEYS:
                yield unsupported(key, f"{path}/{key} (a key)")
            yield from refusals(value, f"{path}/{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from refusals(value, f"{path}/{index}")
    elif isinstance(node, Tensor):
        if node.is_inference():
            yield TypeError(
                f"the state at {path!r} is an inference tensor, and PyTorch does not tell whether "
                "it changes during a save; clone() it outside torch.inference_mode()"
            )
        elif node.is_meta:
            yield TypeError(
                f"the state at {path!r} is a meta tensor, without elements; expected one in memory"
            )
        elif _OF_BITS.fullmatch(str(node.dtype)):
            yield TypeError(
                f"the state at {path!r} is a tensor of {node.dtype}, which PyTorch does not copy; "
                "hold it as torch.int8"
            )
        elif not is_copyable(node):
            yield unsupported(node, path)
    elif type(node) not in _LEAVES:
        yield unsupported(node, path)


def is_copyable(tensor: Tensor) -> bool:
    """Return whether the elements of ``tensor`` can be copied to host memory at any time."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_inference()
        and not tensor.is_meta
        and not _OF_BITS.fullmatch(str(tensor.dtype))
    )
