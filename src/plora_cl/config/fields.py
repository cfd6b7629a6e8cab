"""Every setting with its type, range, default and meaning; a description here feeds ``--help``."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from plora_cl.config.byte_size import as_bytes
from plora_cl.config.task_source import TaskEntry, as_text

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


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", value):
        raise ValueError(f"{value!r}; expected auto, cpu, cuda, cuda:N or mps")
    return value


def _available_shared(value: str) -> str:
    if value == "lora":
        raise ValueError(
            "'lora' is not available yet; use none, layernorm, embeddings or a regular expression"
        )
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


def _not_empty(values: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not values:
        raise ValueError("is empty; expected at least one entry")
    return values


def _available_estimator(value: object) -> object:
    if value in ("sampled", "batched"):
        raise ValueError(f"{value!r} is not available yet; use empirical or exact")
    return value


_Switch = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=0)]
_Positive = Annotated[int, Field(strict=True, ge=1)]
_Number = Annotated[float, BeforeValidator(_not_a_truth_value), Field(allow_inf_nan=False)]
_NotNegative = Annotated[_Number, Field(ge=0)]
_AboveZero = Annotated[_Number, Field(gt=0)]
_Ratio = Annotated[_Number, Field(ge=0, le=1)]
_Text = Annotated[str, BeforeValidator(as_text), Field(min_length=1)]
_Place = Annotated[_Text, AfterValidator(os.path.expanduser)]


class SettingFields(BaseModel):
    """Settings that are right one by one; `Settings` also fit together."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model_name: _Place = "distilbert-base-uncased"
    """Pretrained encoder: hub id, local folder or packaged:minilm-l6."""
    tasks: Annotated[tuple[TaskEntry, ...], AfterValidator(_not_empty)] = (
        "ag_news",
        "yelp_polarity",
        "amazon_polarity",
        "dbpedia_14",
        "yahoo_answers_topics",
    )
    """Tasks in learning order: names, folders or mappings (name, path|hub|packaged, columns)."""
    experiment_name: Annotated[_Text, AfterValidator(_plain_folder_name)] = "default"
    """Folder below experiment_dir that holds everything of the run."""
    experiment_dir: _Place = "experiments"
    """Folder that holds the experiments."""
    seed: Annotated[_Count, Field(lt=2**63)] = 42
    """Fixes data order, initial values and dropout."""
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; fp16 needs a GPU."""

    epochs: _Positive = 3
    """Passes over the training split of each task."""
    batch_size: _Positive = 32
    """Training examples per batch."""
    learning_rate: _AboveZero = 1e-4
    """Peak learning rate of AdamW."""
    weight_decay: _NotNegative = 0.01
    """Decoupled weight decay of matrices."""
    warmup_ratio: _Ratio = 0.1
    """Share of a task's steps over which the learning rate rises, in [0, 1]."""
    max_grad_norm: _AboveZero = 1.0
    """Gradients are scaled down to this Euclidean norm."""
    gradient_accumulation_steps: _Positive = 1
    """Batches per optimizer step."""
    max_length: Annotated[_Positive, Field(ge=2)] = 128
    """Longest text in tokens; the rest is cut off."""
    max_train_examples: _Count = 0
    """Training examples per task, a stratified sample; 0 takes all."""
    max_eval_examples: _Count = 0
    """Examples per validation and test split, a stratified sample; 0 takes all."""
    eval_batch_size: _Positive = 64
    """Examples per batch when measuring."""
    early_stopping_patience: _Count = 0
    """Epochs without a better validation accuracy before a task ends; 0 never stops early."""
    early_stopping_min_delta: _NotNegative = 0.0
    """Gain in validation accuracy that counts as better."""

    pooling: Literal["cls", "mean"] = "cls"
    """How tokens become one vector: cls takes the first, mean averages them."""
    composition: Literal["isolated", "cumulative"] = "isolated"
    """Which adapters act: isolated takes the task's own, cumulative the sum of all so far."""
    shared: Annotated[_Text, AfterValidator(_available_shared)] = "layernorm"
    """Encoder parameters all tasks change: none, layernorm, embeddings or a regular expression."""
    lora_r: _Positive = 8
    """Rank of the adapters."""
    lora_alpha: _Positive = 16
    """Scale of the adapters; they contribute lora_alpha / lora_r."""
    lora_dropout: Annotated[_NotNegative, Field(lt=1)] = 0.05
    """Dropout in front of the adapter in training, in [0, 1)."""
    lora_target_modules: Annotated[tuple[_Text, ...], AfterValidator(_not_empty)] | None = None
    """Endings of layer names to adapt; null takes the attention projections."""

    use_ewc: _Switch = True
    """Elastic weight consolidation: hold shared parameters that earlier tasks need."""
    lambda_ewc: _NotNegative = 100.0
    """Strength of EWC."""
    ewc_mode: Literal["offline", "online"] = "online"
    """EWC memory: offline keeps one Fisher estimate per task, online a decayed sum."""
    ewc_fisher: Annotated[Literal["empirical", "exact"], BeforeValidator(_available_estimator)] = (
        "empirical"
    )
    """Fisher estimator: empirical uses the true label, exact the expectation over classes."""
    ewc_gamma: _Ratio = 1.0
    """Decay of the online sum per task, in [0, 1]."""
    ewc_fisher_examples: _Positive = 200
    """Training examples per task for the Fisher estimate."""
    use_orthogonal: _Switch = True
    """O-LoRA: keep each adapter orthogonal to earlier ones."""
    lambda_ortho: _NotNegative = 0.1
    """Strength of the orthogonality penalty."""
    ortho_form: Literal["absolute", "squared"] = "absolute"
    """Overlaps are summed as absolute values or squared."""
    use_replay: _Switch = False
    """Generative replay of earlier tasks (not available yet)."""
    replay_ratio: _NotNegative = 0.2
    """Replayed examples per training example."""
    generation_model: _Text = "gpt2"
    """Language model that writes replay examples."""
    max_gen_length: _Positive = 50
    """Longest generated text in tokens."""
    temperature: _AboveZero = 0.7
    """Sampling temperature of the generator."""
    top_p: Annotated[_AboveZero, Field(le=1)] = 0.9
    """Nucleus sampling threshold of the generator, in (0, 1]."""
    use_lateral: _Switch = False
    """Lateral connections from earlier adapters (not available yet)."""

    checkpoint_every: _Count = 100
    """Optimizer steps between checkpoints; 0 disables checkpoints."""
    keep_last_n_checkpoints: _Positive = 3
    """Checkpoints to keep of the task in training; the last of a finished task always stays."""
    async_checkpoint: _Switch = True
    """Write checkpoints while training goes on; off: each save returns when it is durable."""
    checkpoint_disk_budget: Annotated[_Positive, BeforeValidator(as_bytes)] | None = None
    """Most that checkpoints may take, in bytes or like 500 MB; null for no bound."""
    cache_dir: _Place | None = None
    """Folder for tokenised texts; null takes the user's cache folder."""
