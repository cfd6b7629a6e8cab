"""Pooling of hidden states, and the layers to read."""

from __future__ import annotations

from torch import Tensor


def token_mean(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Average ``[batch, tokens, hidden]`` over the tokens of each text, ``[batch, hidden]``.

    Args:
        hidden: Hidden states.
        attention_mask: 1 for text, 0 for padding; None without padding.
    """
    if attention_mask is None:
        return hidden.mean(1)
    weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def middle_layers(depth: int) -> list[int]:
    """Return the layers at a half and at five sixths of an encoder, counted from 1, ascending.

    The last layer serves the pretraining objective; earlier layers separate sources of texts,
    by genre and style, more clearly. In a shallow encoder both may be the same layer.

    Args:
        depth: Number of layers, at least 1.
    """
    return sorted({(depth + 1) // 2, (5 * depth + 3) // 6})
