"""Every setting with its type, range, default and meaning; a description here feeds ``--help``."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from plora_cl.config.byte_size import as_bytes
from plora_cl.config.streams import STREAMS, expanded, recognised
from plora_cl.data.sources.entry import AnyEntry
from plora_cl.data.sources.frames import remembered
from plora_cl.errors import ExtensionError
from plora_cl.extensions import told
from plora_cl.impact import Impact
from plora_cl.methods.registry import TechniqueSettings, added, origin
from plora_cl.setting_types import (
    AboveZero,
    Count,
    NotNegative,
    Place,
    Positive,
    Ratio,
    Refers,
    SettingsGroup,
    Switch,
    Text,
    impact_of,
    not_empty,
)

_Group = TypeVar("_Group", bound=SettingsGroup)


def _plain_folder_name(value: str) -> str:
    if value in {".", ".."} or re.search(r"[/\\\x00-\x1f]", value) or value != value.strip():
        raise ValueError(
            f"{value!r}; expected the name of one folder, without separators; where it is created "
            "is experiment_dir"
        )
    return value


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", value):
        raise ValueError(f"{value!r}; expected auto, cpu, cuda, cuda:N or mps")
    return value


_Bytes = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
_HARMLESS, _TRAJECTORY = Impact.HARMLESS, Impact.TRAJECTORY


class _TrainingSettings(SettingsGroup):
    """What is learned, where, and how each task is trained."""

    model_name: Annotated[Place, Refers.MODEL, _HARMLESS] = "distilbert-base-uncased"
    """Pretrained encoder: hub id, local folder or packaged:minilm-l6."""
    tasks: Annotated[
        tuple[AnyEntry, ...],
        BeforeValidator(
            lambda value: expanded(recognised(remembered(value))),
            json_schema_input_type=tuple[AnyEntry, ...] | str,
        ),
        AfterValidator(not_empty),
        _HARMLESS,
    ] = STREAMS["plora5"]
    """Tasks in order: a stream, or names, folders, mappings (name, path|hub|packaged, columns)."""
    experiment_name: Annotated[Text, AfterValidator(_plain_folder_name), _HARMLESS] = "default"
    """Folder below experiment_dir that holds everything of the run."""
    experiment_dir: Annotated[Place, Refers.PATH, _HARMLESS] = "experiments"
    """Folder that holds the experiments."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63), _TRAJECTORY] = 42
    """Fixes data order, initial values and dropout."""
    device: Annotated[str, AfterValidator(_known_device), _HARMLESS] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:N or mps."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], _TRAJECTORY] = "fp32"
    """Arithmetic of the forward pass and of the generator; fp16 needs a GPU."""
    deterministic: Annotated[Switch, _TRAJECTORY] = True
    """Compute the same bits each time on CUDA, at some cost in speed; a CPU always does."""

    epochs: Annotated[Positive, _TRAJECTORY] = 3
    """Passes over the training split of each task."""
    batch_size: Annotated[Positive, _TRAJECTORY] = 32
    """Training examples per batch."""
    learning_rate: Annotated[AboveZero, _TRAJECTORY] = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[NotNegative, _TRAJECTORY] = 0.01
    """Decoupled weight decay of matrices."""
    warmup_ratio: Annotated[Ratio, _TRAJECTORY] = 0.1
    """Share of a task's steps over which the learning rate rises, in [0, 1]."""
    max_grad_norm: Annotated[AboveZero, _TRAJECTORY] = 1.0
    """Gradients are scaled down to this Euclidean norm."""
    gradient_accumulation_steps: Annotated[Positive, _TRAJECTORY] = 1
    """Batches per optimizer step."""
    max_length: Annotated[Positive, Field(ge=2), _TRAJECTORY] = 128
    """Longest text in tokens; the rest is cut off."""
    max_train_examples: Annotated[Count, _TRAJECTORY] = 0
    """Training examples per task, a stratified sample; 0 takes all."""
    max_eval_examples: Annotated[Count, _TRAJECTORY] = 0
    """Examples per validation and test split, a stratified sample; 0 takes all."""
    max_train_examples_per_class: Annotated[Count, _TRAJECTORY] = 0
    """Training examples of each class of a task; 0 takes all."""
    max_validation_examples_per_class: Annotated[Count, _TRAJECTORY] = 0
    """Validation examples of each class of a task; 0 takes all."""
    hold_out_validation: Annotated[Literal["auto", "always"], _HARMLESS] = "auto"
    """A tenth of training validates where a task has no such split: auto: if used; or always."""
    measure_validation: Annotated[Switch, _HARMLESS] = False
    """Also measure the validation splits when a run ends: choose settings by these scores."""
    eval_batch_size: Annotated[Positive, _TRAJECTORY] = 64
    """Examples per batch when measuring."""
    class_weights: Annotated[Literal["none", "balanced"], _TRAJECTORY] = "none"
    """Weight of an example in the loss: none, or balanced by the frequency of its class."""
    early_stopping_patience: Annotated[Count, _TRAJECTORY] = 0
    """Epochs without a better validation score before a task ends; 0 never stops early."""
    early_stopping_metric: Annotated[Literal["accuracy", "f1"], _TRAJECTORY] = "accuracy"
    """Validation score that early stopping watches: accuracy, or f1 (macro-F1; skewed classes)."""
    early_stopping_min_delta: Annotated[NotNegative, _TRAJECTORY] = 0.0
    """Gain in the validation score that counts as better."""


class _RunSettings(SettingsGroup):
    """What is measured and saved during training."""

    use_router: Annotated[Switch, _TRAJECTORY] = True
    """Also measure with the task of each text inferred, not only with the task given."""
    router_examples: Annotated[Positive, _TRAJECTORY] = 500
    """Training examples per task that the router learns from, a stratified sample."""
    router_abstain: Annotated[Ratio, Field(lt=1), _TRAJECTORY] = 0.05
    """Share of texts like the training ones that count as doubtful, about; 0 never doubts."""

    checkpoint_every: Annotated[Count, _HARMLESS] = 100
    """Optimizer steps between checkpoints; 0 disables checkpoints."""
    keep_last_n_checkpoints: Annotated[Positive, _HARMLESS] = 3
    """Checkpoints to keep of the task in training, 1 for no spare; a task's last always stays."""
    async_checkpoint: Annotated[Switch, _HARMLESS] = True
    """Write checkpoints in the background; off: each save returns when it is durable."""
    checkpoint_disk_budget: Annotated[
        Annotated[_Bytes, BeforeValidator(as_bytes, json_schema_input_type=_Bytes | str)] | None,
        _HARMLESS,
    ] = None
    """Most that checkpoints may take, in bytes or like 500 MB; null for no bound."""
    cache_dir: Annotated[Place | None, Refers.PATH, _HARMLESS] = None
    """Folder for tokenised texts; null takes the user's cache folder."""


class SettingFields(_RunSettings, TechniqueSettings, _TrainingSettings):
    """Settings that are valid one by one; `Settings` are also consistent.

    The last base comes first in a record. ``model_name``, ``tasks``, ``device``,
    ``hold_out_validation`` and ``measure_validation`` are harmless because they only say where to
    look: the weights, the texts of each split and the kind of device are compared themselves.
    """


def extended(base: type[_Group]) -> type[_Group]:
    """Return ``base`` with the settings of techniques from installed packages, if there are any.

    Raises:
        ExtensionError: A package declares a technique that cannot be used.
    """
    groups = [technique.settings for technique in added()]
    if not groups:
        return base
    _require_distinct(base)
    bases: tuple[Any, ...] = (*reversed(groups), base)
    try:
        return create_model(base.__name__, __base__=bases, __module__=__name__)
    except TypeError as error:  # base classes in an order that contradicts that of others
        raise ExtensionError(
            f"{'; '.join(map(origin, added()))}: their settings cannot be joined: {told(error)}"
        ) from error


@cache
def setting_fields() -> type[SettingFields]:
    """Return `SettingFields` with the settings of installed packages."""
    return extended(SettingFields)


@cache
def impacts() -> dict[str, Impact]:
    """Return what another value of each setting does to a run that is resumed."""
    return {name: impact_of(field) for name, field in setting_fields().model_fields.items()}


_IN_THE_IDENTITY = ("encoder", "data", "methods")


def _require_distinct(base: type[SettingsGroup]) -> None:
    """Refuse a setting of a package that has the name of another one."""
    taken = {*base.model_fields, *_IN_THE_IDENTITY}
    for technique in added():
        for name in technique.setting_names:
            if name in taken:
                raise ExtensionError(
                    f"{origin(technique)}: its setting {name!r} has the name of another one; "
                    "rename it there, or uninstall the package"
                )
            taken.add(name)
