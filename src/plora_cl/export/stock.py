"""A task as a model of transformers, and as an adapter of PEFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from plora_cl.errors import ModelError
from plora_cl.export.heads import StockHead, place_head, stock_head
from plora_cl.export.weights import Lora, TaskWeights, fill
from plora_cl.pretrained.loading import without_pooler
from plora_cl.pretrained.lora_matrices import A, B, lora_layers, lora_matrices

Logits: TypeAlias = Callable[[Tensor, Tensor], Tensor]

BASE_FOLDER = "base"
"""Where an exported adapter has its base, unless that is on the hub."""


def labelled(config: Any, classes: Sequence[str]) -> Any:
    """Return the configuration of an encoder as that of a classifier."""
    own = deepcopy(config)
    own.id2label = dict(enumerate(classes))
    own.label2id = {name: index for index, name in enumerate(classes)}
    own.problem_type = "single_label_classification"
    own.architectures = None
    own._name_or_path = ""
    return own


def require_stock(weights: TaskWeights, config: Any, pooling: str) -> StockHead:
    """Return the head of transformers that can compute the logits of a task.

    Raises:
        ModelError: None can.
    """
    if weights.has_lateral:
        raise ModelError(
            "a lateral connection reads the features of earlier tasks, which no stock model does; "
            "use --format onnx"
        )
    if pooling != "cls":
        raise ModelError(
            f"pooling: {pooling} averages all tokens, and the heads of transformers read the first "
            "one; use --format onnx"
        )
    return stock_head(config)


def save_transformers(weights: TaskWeights, config: Any, head: StockHead, folder: Path) -> Logits:
    """Save the merged model of a task, which ``AutoModelForSequenceClassification`` loads.

    Args:
        weights: Of the task.
        config: What `labelled` returned.
        head: What `require_stock` returned.
        folder: Where to.

    Returns:
        What computes logits with the saved model.

    Raises:
        ModelError: The head has too many classes.
    """
    model = _classifier(config, weights.merged())
    place_head(model, weights.head, head)
    model.save_pretrained(folder)
    return _computing(AutoModelForSequenceClassification.from_pretrained(folder))


def save_peft(
    weights: TaskWeights, config: Any, head: StockHead, folder: Path, *, base: str | None
) -> Logits:
    """Save the adapter of a task, its head and the shared weights, which ``PeftModel`` loads.

    Args:
        weights: Of the task.
        config: What `labelled` returned.
        head: What `require_stock` returned.
        folder: Where to; it also gets the configuration, which names the classes.
        base: Hub id of the base model; None saves it in `BASE_FOLDER`.

    Returns:
        What computes logits with the saved adapter.

    Raises:
        ModelError: There is no adapter, or a module changed as a whole that has one.
    """
    if weights.lora is None:
        raise ModelError("the run has no adapters to export; use --format transformers")
    model = _classifier(config, weights.encoder)
    place_head(model, weights.head, head)
    prefix = f"{model.base_model_prefix}."
    layers = {f"{prefix}{layer}" for layer in weights.lora.a}
    changed = {f"{prefix}{name.rpartition('.')[0]}" for name in weights.shared}
    for name in sorted(changed):
        if name in layers or next(model.get_submodule(name).children(), None) is not None:
            raise ModelError(
                f"training changed {name} itself as well as its adapter, and PEFT cannot hold "
                "both; use --format transformers"
            )
    if base is None:
        _save_base(weights, model.config, folder / BASE_FOLDER)
    rank = weights.lora.rank
    adapter = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=round(rank * weights.lora.scale),
        target_modules=sorted(layers),
        modules_to_save=sorted({*changed, *head.saved} - {"classifier"}),  # which PEFT adds
        inference_mode=True,
        base_model_name_or_path=base,
    )
    wrapped = get_peft_model(model, adapter)
    _fill_adapter(wrapped, weights.lora, prefix)
    wrapped.peft_config["default"].base_model_name_or_path = base
    wrapped.save_pretrained(str(folder))
    config.save_pretrained(folder)
    plain = _classifier(config, weights.encoder)  # a base on the hub need not be fetched
    return _computing(PeftModel.from_pretrained(plain, folder))


def _computing(model: Any) -> Logits:
    model.eval()
    return lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits


def _save_base(weights: TaskWeights, config: Any, folder: Path) -> None:
    with torch.random.fork_rng():
        encoder = without_pooler(AutoModel.from_config(config, dtype=torch.float32))
    fill(encoder, weights.encoder)
    encoder.save_pretrained(folder)


def _classifier(config: Any, encoder: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        model: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    fill(getattr(model, model.base_model_prefix), encoder)
    found: PreTrainedModel = model.eval().requires_grad_(False)
    return found


def _fill_adapter(model: PeftModel, lora: Lora, prefix: str) -> None:
    inner = model.base_model.model
    assert isinstance(inner, nn.Module)
    matrices = lora_matrices(lora_layers(inner), "default")
    with torch.no_grad():
        for layer in lora.a:
            matrices[f"{prefix}{layer}.{A}"].copy_(lora.a[layer])
            matrices[f"{prefix}{layer}.{B}"].copy_(lora.b[layer])
