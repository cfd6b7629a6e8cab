"""Every setting with its type, range, default and meaning; a description here feeds ``--help``."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)

from plora_cl.config.byte_size import as_bytes
from plora_cl.config.streams import STREAMS, expanded, recognised
from plora_cl.config.task_entry import LIST, MAPPING, TaskEntry, Text
from plora_cl.generation.prompts import require_valid
from plora_cl.impact import Impact

_Entry = TypeVar("_Entry")


def _not_a_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()}; expected a number")  # noqa: TRY004 - pydantic's way
    return value


def _plain_folder_name(value: str) -> str:
    if value in {".", ".."} or re.search(r"[/\\\x00-\x1f]", value) or value != value.strip():
        raise ValueError(
            f"{value!r}; expected the name of one folder, without separators; where it is created "
            "is experiment_dir"
        )
    return value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{value!r}; expected a path, without a null character")
    return value


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", value):
        raise ValueError(f"{value!r}; expected auto, cpu, cuda, cuda:N or mps")
    return value


def _regular_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


def _not_empty(values: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not values:
        raise ValueError("is empty; expected at least one entry")
    return values


def _valid_prompts(value: _Prompts) -> _Prompts:
    lists = value.values() if isinstance(value, dict) else [value or ()]
    for template in (template for templates in lists for template in templates):
        require_valid(template)
    return value


_Switch = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
_Positive = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
_Rank = Annotated[int, Field(strict=True, ge=1, le=2**16)]  # of layers with so many inputs
_Bytes = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
_Number = Annotated[float, BeforeValidator(_not_a_truth_value), Field(allow_inf_nan=False)]
_NotNegative = Annotated[_Number, Field(ge=0)]
_AboveZero = Annotated[_Number, Field(gt=0)]
_Ratio = Annotated[_Number, Field(ge=0, le=1)]
_Templates: TypeAlias = Annotated[tuple[Text, ...], AfterValidator(_not_empty)]
_Prompts: TypeAlias = (
    Annotated[
        Annotated[_Templates, Tag(LIST)] | Annotated[dict[str, _Templates], Tag(MAPPING)],
        Discriminator(lambda value: MAPPING if isinstance(value, dict) else LIST),
    ]
    | None
)
_Place = Annotated[Text, AfterValidator(_path), AfterValidator(os.path.expanduser)]

# What another value does to a run that is resumed; every setting below carries one of them.
_HARMLESS, _TRAJECTORY, _STRUCTURAL = Impact.HARMLESS, Impact.TRAJECTORY, Impact.STRUCTURAL


class SettingFields(BaseModel):
    """Settings that are right one by one; `Settings` also fit together.

    The metadata of each field hold the `Impact` of another value on a run that is resumed.
    ``model_name``, ``tasks``, ``device``, ``hold_out_validation`` and ``measure_validation`` only
    say where to look: the weights, the texts of each split and the kind of device that are found
    there are compared themselves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model_name: Annotated[_Place, _HARMLESS] = "distilbert-base-uncased"
    """Pretrained encoder: hub id, local folder or packaged:minilm-l6."""
    tasks: Annotated[
        tuple[TaskEntry, ...],
        BeforeValidator(lambda value: expanded(recognised(value))),
        AfterValidator(_not_empty),
        _HARMLESS,
    ] = STREAMS["plora5"]
    """Tasks in order: a stream, or names, folders, mappings (name, path|hub|packaged, columns)."""
    experiment_name: Annotated[Text, AfterValidator(_plain_folder_name), _HARMLESS] = "default"
    """Folder below experiment_dir that holds everything of the run."""
    experiment_dir: Annotated[_Place, _HARMLESS] = "experiments"
    """Folder that holds the experiments."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63), _TRAJECTORY] = 42
    """Fixes data order, initial values and dropout."""
    device: Annotated[str, AfterValidator(_known_device), _HARMLESS] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:N or mps."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], _TRAJECTORY] = "fp32"
    """Arithmetic of the forward pass and of the generator; fp16 needs a GPU."""
    deterministic: Annotated[_Switch, _TRAJECTORY] = True
    """The same bits each time on CUDA, too, for some of its speed; the CPU always gives them."""

    epochs: Annotated[_Positive, _TRAJECTORY] = 3
    """Passes over the training split of each task."""
    batch_size: Annotated[_Positive, _TRAJECTORY] = 32
    """Training examples per batch."""
    learning_rate: Annotated[_AboveZero, _TRAJECTORY] = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[_NotNegative, _TRAJECTORY] = 0.01
    """Decoupled weight decay of matrices."""
    warmup_ratio: Annotated[_Ratio, _TRAJECTORY] = 0.1
    """Share of a task's steps over which the learning rate rises, in [0, 1]."""
    max_grad_norm: Annotated[_AboveZero, _TRAJECTORY] = 1.0
    """Gradients are scaled down to this Euclidean norm."""
    gradient_accumulation_steps: Annotated[_Positive, _TRAJECTORY] = 1
    """Batches per optimizer step."""
    max_length: Annotated[_Positive, Field(ge=2), _TRAJECTORY] = 128
    """Longest text in tokens; the rest is cut off."""
    max_train_examples: Annotated[_Count, _TRAJECTORY] = 0
    """Training examples per task, a stratified sample; 0 takes all."""
    max_eval_examples: Annotated[_Count, _TRAJECTORY] = 0
    """Examples per validation and test split, a stratified sample; 0 takes all."""
    max_train_examples_per_class: Annotated[_Count, _TRAJECTORY] = 0
    """Training examples of each class of a task; 0 takes all."""
    max_validation_examples_per_class: Annotated[_Count, _TRAJECTORY] = 0
    """Validation examples of each class of a task; 0 takes all."""
    hold_out_validation: Annotated[Literal["auto", "always"], _HARMLESS] = "auto"
    """A tenth of training validates where a task has no such split: auto: if used; or always."""
    measure_validation: Annotated[_Switch, _HARMLESS] = False
    """Measure the validation splits, too, when a run ends: what to choose settings by."""
    eval_batch_size: Annotated[_Positive, _TRAJECTORY] = 64
    """Examples per batch when measuring."""
    class_weights: Annotated[Literal["none", "balanced"], _TRAJECTORY] = "none"
    """Weight of an example in the loss: none, or balanced by the frequency of its class."""
    early_stopping_patience: Annotated[_Count, _TRAJECTORY] = 0
    """Epochs without a better validation score before a task ends; 0 never stops early."""
    early_stopping_metric: Annotated[Literal["accuracy", "f1"], _TRAJECTORY] = "accuracy"
    """Validation score that early stopping watches: accuracy, or f1 (macro-F1; skewed classes)."""
    early_stopping_min_delta: Annotated[_NotNegative, _TRAJECTORY] = 0.0
    """Gain in the validation score that counts as better."""

    pooling: Annotated[Literal["cls", "mean"], _TRAJECTORY] = "cls"
    """How tokens become one vector: cls takes the first, mean averages them."""
    composition: Annotated[Literal["isolated", "cumulative"], _TRAJECTORY] = "isolated"
    """Which adapters act: isolated takes the task's own, cumulative the sum of all so far."""
    task_adapters: Annotated[_Switch, _STRUCTURAL] = True
    """Each task has a LoRA adapter of its own; off: a head alone, beside what is shared."""
    shared: Annotated[Text, AfterValidator(_regular_expression), _STRUCTURAL] = "layernorm"
    """What all tasks change: none, layernorm, embeddings, all, lora (an adapter) or a regex."""
    joint: Annotated[_Switch, _STRUCTURAL] = False
    """Learn all tasks together, in batches of equal share: the bound of what a stream can reach."""
    lora_r: Annotated[_Rank, _STRUCTURAL] = 8
    """Rank of the adapters."""
    lora_alpha: Annotated[_Positive, _TRAJECTORY] = 16
    """Scale of the adapters; they contribute lora_alpha / lora_r."""
    lora_dropout: Annotated[_NotNegative, Field(lt=1), _TRAJECTORY] = 0.05
    """Dropout in front of the adapter in training, in [0, 1)."""
    lora_target_modules: Annotated[
        Annotated[tuple[Text, ...], AfterValidator(_not_empty)] | None, _STRUCTURAL
    ] = None
    """Endings of layer names to adapt; null takes the attention projections."""

    use_ewc: Annotated[_Switch, _STRUCTURAL] = True
    """Elastic weight consolidation: hold shared parameters that earlier tasks need."""
    lambda_ewc: Annotated[_NotNegative, _TRAJECTORY] = 10_000.0
    """Strength of EWC."""
    ewc_mode: Annotated[Literal["offline", "online"], _STRUCTURAL] = "online"
    """EWC memory: offline keeps one Fisher estimate per task, online a decayed sum."""
    ewc_fisher: Annotated[Literal["empirical", "exact", "sampled", "batched"], _TRAJECTORY] = (
        "empirical"
    )
    """Fisher estimator: true label (empirical), all classes, a sampled one, or mean of a batch."""
    ewc_gamma: Annotated[_Ratio, _TRAJECTORY] = 1.0
    """Decay of the online sum per task, in (0, 1]."""
    ewc_fisher_examples: Annotated[_Positive, _TRAJECTORY] = 200
    """Training examples per task for the Fisher estimate."""
    ewc_fisher_batch_size: Annotated[_Positive, _TRAJECTORY] = 32
    """Examples whose mean gradient is squared by the batched estimator; wants a larger lambda."""
    use_orthogonal: Annotated[_Switch, _STRUCTURAL] = False
    """O-LoRA: keep each adapter orthogonal to earlier ones; protects only where they add up."""
    lambda_ortho: Annotated[_NotNegative, _TRAJECTORY] = 0.01
    """Strength of the orthogonality penalty."""
    ortho_form: Annotated[Literal["absolute", "squared"], _TRAJECTORY] = "absolute"
    """Overlaps are summed as absolute values or squared."""
    lambda_ortho_norm: Annotated[_NotNegative, _TRAJECTORY] = 0.0
    """Strength of the norm of each new adapter beside its orthogonality; 0 leaves it free."""
    use_replay: Annotated[_Switch, _STRUCTURAL] = False
    """Generative replay: a language model writes texts of earlier tasks to learn from again."""
    replay_ratio: Annotated[_NotNegative, _TRAJECTORY] = 0.2
    """Replayed examples per training example."""
    replay_prompts: Annotated[_Prompts, AfterValidator(_valid_prompts), _TRAJECTORY] = None
    """Templates with {label} and perhaps {task}: a list, or lists by task; null: built-in."""
    replay_filter: Annotated[_Switch, _TRAJECTORY] = True
    """Keep only texts that the earlier task's own head assigns to the class asked for."""
    replay_token_budget: Annotated[_Count, _TRAJECTORY] = 0
    """New tokens before each task, a chunk for each class at least; 0: four times what is asked."""
    replay_tuning: Annotated[_Switch, _STRUCTURAL] = False
    """Tune the generator on each task with a LoRA while its texts are there, as LAMOL does."""
    replay_tuning_examples: Annotated[_Positive, _TRAJECTORY] = 1000
    """Training examples per task that the generator is tuned on, a stratified sample."""
    replay_tuning_epochs: Annotated[_Positive, _TRAJECTORY] = 3
    """Passes over them."""
    replay_tuning_learning_rate: Annotated[_AboveZero, _TRAJECTORY] = 1e-3
    """Learning rate of the generator's LoRA at first; it falls linearly to 0."""
    replay_tuning_r: Annotated[_Rank, _TRAJECTORY] = 8
    """Rank of the generator's LoRA; a checkpoint holds one for each finished task."""
    generation_model: Annotated[_Place, _TRAJECTORY] = "gpt2"
    """Language model that writes replay examples: hub id, folder, .gguf file, packaged:smollm2."""
    generation_batch_size: Annotated[_Positive, _TRAJECTORY] = 16
    """Texts to generate at once, and to tune the generator on at once."""
    max_gen_length: Annotated[_Positive, _TRAJECTORY] = 50
    """Longest generated text in tokens."""
    temperature: Annotated[_AboveZero, _TRAJECTORY] = 0.7
    """Sampling temperature of the generator."""
    top_p: Annotated[_AboveZero, Field(le=1), _TRAJECTORY] = 0.9
    """Nucleus sampling threshold of the generator, in (0, 1]."""
    use_lateral: Annotated[_Switch, _STRUCTURAL] = False
    """Lateral connections: each task also reads the features of earlier adapters."""
    lateral_rank: Annotated[_Rank, _STRUCTURAL] = 32
    """Inner size of the network of a lateral connection."""

    use_router: Annotated[_Switch, _TRAJECTORY] = True
    """Measure with the task of a text inferred, too, beside the scores with the task known."""
    router_examples: Annotated[_Positive, _TRAJECTORY] = 500
    """Training examples per task that the router learns from, a stratified sample."""
    router_abstain: Annotated[_Ratio, Field(lt=1), _TRAJECTORY] = 0.05
    """Share of texts like the training ones that count as doubtful, about; 0 never doubts."""

    checkpoint_every: Annotated[_Count, _HARMLESS] = 100
    """Optimizer steps between checkpoints; 0 disables checkpoints."""
    keep_last_n_checkpoints: Annotated[_Positive, _HARMLESS] = 3
    """Checkpoints to keep of the task in training, 1 for no spare; a task's last always stays."""
    async_checkpoint: Annotated[_Switch, _HARMLESS] = True
    """Write checkpoints while training goes on; off: each save returns when it is durable."""
    checkpoint_disk_budget: Annotated[
        Annotated[_Bytes, BeforeValidator(as_bytes)] | None, _HARMLESS
    ] = None
    """Most that checkpoints may take, in bytes or like 500 MB; null for no bound."""
    cache_dir: Annotated[_Place | None, _HARMLESS] = None
    """Folder for tokenised texts; null takes the user's cache folder."""
