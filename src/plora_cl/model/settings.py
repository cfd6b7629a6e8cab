"""Settings of the model that techniques refer to; loads no torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from plora_cl.impact import Impact
from plora_cl.setting_types import (
    NotNegative,
    Positive,
    Rank,
    SettingsGroup,
    Switch,
    Text,
    not_empty,
)

_TRAJECTORY, _STRUCTURAL = Impact.TRAJECTORY, Impact.STRUCTURAL

Pooling: TypeAlias = Literal["cls", "mean"]
Composition: TypeAlias = Literal["isolated", "cumulative"]


def _regular_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


class ModelSettings(SettingsGroup):
    """Structure and composition of the model. The settings of a technique inherit from these."""

    pooling: Annotated[Pooling, _TRAJECTORY] = "cls"
    """How tokens become one vector: cls takes the first, mean averages them."""
    composition: Annotated[Composition, _TRAJECTORY] = "isolated"
    """Which adapters act: isolated takes the task's own, cumulative the sum of all so far."""
    task_adapters: Annotated[Switch, _STRUCTURAL] = True
    """Each task has its own LoRA adapter; off: only its head and what is shared."""
    shared: Annotated[Text, AfterValidator(_regular_expression), _STRUCTURAL] = "layernorm"
    """What all tasks change: none, layernorm, embeddings, all, lora (an adapter) or a regex."""
    joint: Annotated[Switch, _STRUCTURAL] = False
    """Learn all tasks together, in batches of equal share: the bound of what a stream can reach."""
    lora_r: Annotated[Rank, _STRUCTURAL] = 8
    """Rank of the adapters."""
    lora_alpha: Annotated[Positive, _TRAJECTORY] = 16
    """Scale of the adapters; they contribute lora_alpha / lora_r."""
    lora_dropout: Annotated[NotNegative, Field(lt=1), _TRAJECTORY] = 0.05
    """Dropout in front of the adapter in training, in [0, 1)."""
    lora_target_modules: Annotated[
        Annotated[tuple[Text, ...], AfterValidator(not_empty)] | None, _STRUCTURAL
    ] = None
    """Endings of layer names to adapt; null takes the attention projections."""
