"""Encoders with random weights, and tokenised tasks, small enough to build in every test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from plora_cl.data.batches import Batch
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.data.tokens.token_file import TokenFile, TokenFileWriter
from plora_cl.model.classifier import ContinualClassifier

FAMILIES = ("distilbert", "bert", "roberta", "electra", "deberta-v2", "mpnet", "albert")
HIDDEN, LAYERS, VOCABULARY = 32, 2, 100

_BERT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 48,
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "distilbert": {
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": 2,
        "hidden_dim": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 48,
    },
    "electra": _BERT | {"embedding_size": 16},
    "deberta-v2": _BERT
    | {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["p2c", "c2p"],
    },
    "albert": _BERT | {"embedding_size": 16},
}


def tiny_encoder(family: str = "bert") -> PreTrainedModel:
    """Return a two-layer encoder of ``family``; the same weights each time."""
    config = AutoConfig.for_model(family, **_SETTINGS.get(family, _BERT))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder: PreTrainedModel = AutoModel.from_config(config)
        for name, parameter in encoder.named_parameters():
            if "norm" in name.lower():  # all ones and zeros would hide mistakes
                torch.nn.init.normal_(parameter, mean=float("weight" in name), std=0.1)
    if getattr(encoder, "pooler", None) is not None:
        setattr(encoder, "pooler", None)  # noqa: B010 - declared as a module
    return encoder


def tiny_model(
    family: str = "bert", *, tasks: Sequence[int] = (), **options: Any
) -> ContinualClassifier:
    """Return a model that has grown ``tasks`` (their numbers of classes)."""
    model = ContinualClassifier(
        tiny_encoder(family), **{"lora_r": 2, "lora_alpha": 4, "seed": 1, **options}
    )
    for classes in tasks:
        model.grow(classes)
    return model


def learn_something(model: ContinualClassifier) -> None:
    """Move every trainable parameter, as training would; the same way each time."""
    generator = torch.Generator().manual_seed(model.tasks)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def some_text(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and their mask, ``[len(lengths), max(lengths)]`` each."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.randint(5, VOCABULARY, shape, generator=generator)
    return ids.where(mask.bool(), torch.ones(())).long(), mask


def some_batch(*lengths: int, task: int = 0, classes: int = 2, seed: int = 0) -> Batch:
    """Return random examples of the given numbers of tokens."""
    labels = torch.arange(len(lengths)) % classes
    return Batch(*some_text(*lengths, seed=seed), labels, task)


def token_task(folder: Path, index: int, *, classes: int = 2, rows: int = 12) -> Task:
    """Return a task of random tokens, its three splits alike, stored under ``folder``."""
    generator = np.random.default_rng(index)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"task-{index}.arrow"
    ids = [generator.integers(5, VOCABULARY, 3 + row % 5).tolist() for row in range(rows)]
    labels, texts = [row % classes for row in range(rows)], [f"text {row}" for row in range(rows)]
    with TokenFileWriter(path) as writer:
        writer.append("train", ids, labels, texts)
    split = Split(TokenFile(path), task=index, pad_token_id=1)
    names = tuple(f"class {c}" for c in range(classes))
    return Task(
        index, f"task {index}", names, split, split, split, f"digest {index}", f"source {index}"
    )
