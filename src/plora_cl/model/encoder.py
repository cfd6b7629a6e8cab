"""Pretrained encoders: loading, layers to adapt, and parameters to share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from plora_cl.errors import ModelError
from plora_cl.model.locations import resolve_packaged
from plora_cl.model.projections import ATTENTION_PROJECTIONS, ends_with
from plora_cl.pretrained.loading import load_pretrained, longest_input, without_pooler

_HUB_HELP = (
    "is it spelled right, and is the model hub reachable? Without a hub, give a local folder, or "
    "run the packaged models and tasks with --preset quickstart"
)


def load_encoder(model_name: str) -> PreTrainedModel:
    """Load an encoder in float32 without its pooler; `ContinualClassifier` has its own pooling.

    Args:
        model_name: Hub id or local folder.

    Raises:
        ModelError: There is no such model, or it is not an encoder.
    """
    encoder: PreTrainedModel = _loaded(AutoModel, model_name, dtype=torch.float32)
    if getattr(encoder.config, "is_encoder_decoder", False) or not hasattr(
        encoder.config, "hidden_size"
    ):
        raise ModelError(
            f"model_name: {model_name!r} is a {encoder.config.model_type} model; expected an "
            "encoder such as distilbert-base-uncased"
        )
    return without_pooler(encoder)


def load_tokenizer(model_name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``model_name``.

    Raises:
        ModelError: There is none.
    """
    tokenizer: PreTrainedTokenizerBase = _loaded(AutoTokenizer, model_name)
    return tokenizer


def _loaded(factory: Any, model_name: str, **options: Any) -> Any:
    return load_pretrained(
        factory,
        resolve_packaged(model_name),
        asked_as=f"model_name: {model_name!r}",
        advice=_HUB_HELP,
        **options,
    )


def require_positions(encoder: nn.Module, max_length: int) -> None:
    """Refuse a maximum length that an encoder has no positions for, before training starts.

    Args:
        encoder: Encoder of transformers.
        max_length: Longest text, in tokens.

    Raises:
        ModelError: The encoder has fewer positions.
    """
    limit = longest_input(encoder)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"max_length: {max_length} is more than the {limit} tokens that the encoder takes; set "
            f"it to {limit} at most, for instance with --set max_length={limit}"
        )


def adapter_targets(encoder: nn.Module, names: Sequence[str] | None = None) -> list[str]:
    """Return the qualified names of the linear layers to adapt, in module order.

    Args:
        encoder: The encoder, without adapters.
        names: Name endings such as ``q_lin``; None for the attention projections.

    Raises:
        ModelError: An ending matches no linear layer, or no attention projection is recognised.
    """
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    if names is None:
        found = [name for name in linear if ATTENTION_PROJECTIONS.search(name)]
        if not found:
            raise ModelError(
                "lora_target_modules: cannot tell the attention projections of this encoder; "
                f"name them, for instance by endings of {linear[:6]}"
            )
        return found
    for ending in names:
        if not any(ends_with(name, ending) for name in linear):
            raise ModelError(
                f"lora_target_modules: {ending!r} matches no linear layer; there are, for "
                f"instance, {linear[:6]}"
            )
    return [name for name in linear if any(ends_with(name, ending) for ending in names)]


def shared_names(encoder: nn.Module, shared: str) -> list[str]:
    """Return the names of the encoder parameters that every task may change.

    Args:
        encoder: The encoder, without adapters.
        shared: ``none``, ``layernorm``, ``embeddings``, ``all`` or a regular expression that is
            searched for in parameter names; ``lora`` adds parameters and takes none of these.

    Raises:
        ModelError: Nothing matches.
    """
    kinds: dict[str, type[nn.Module]] = {"layernorm": nn.LayerNorm, "embeddings": nn.Embedding}
    if shared in ("none", "lora"):
        return []
    if shared == "all":
        return [name for name, _ in encoder.named_parameters()]
    if shared in kinds:
        prefixes = [n for n, m in encoder.named_modules() if isinstance(m, kinds[shared])]
        owned = {f"{prefix}.{leaf}" for prefix in prefixes for leaf in ("weight", "bias")}
        found = [name for name, _ in encoder.named_parameters() if name in owned]
    else:
        found = [name for name, _ in encoder.named_parameters() if re.search(shared, name)]
    if not found:
        examples = [name for name, _ in encoder.named_parameters()][:4]
        raise ModelError(
            f"shared: {shared!r} matches no parameter of the encoder; use none, layernorm, "
            f"embeddings, lora, all or a regular expression over names such as {examples}"
        )
    return found
