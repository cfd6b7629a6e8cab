"""Exports of every architecture and composition, loaded with the libraries they are for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from encoders import FAMILIES, HIDDEN, learn_something, some_text, tiny_encoder, tiny_model
from plora_cl.errors import ModelError
from plora_cl.export.heads import STOCK_HEADS, place_head, stock_head
from plora_cl.export.onnx_model import onnx_logits, save_onnx
from plora_cl.export.stock import _classifier, labelled, require_stock, save_peft, save_transformers
from plora_cl.export.weights import task_weights
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.pretrained.quiet import quiet_loading

CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_loading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def learned(family: str = "bert", *, tasks: int = 2, **options: Any) -> ContinualClassifier:
    """Return a model that has learned something in each of its tasks."""
    model = tiny_model(family, **options)
    for _ in range(tasks):
        model.grow(len(CLASSES))
        learn_something(model)
    return model.eval().requires_grad_(False)


def exported(model: ContinualClassifier, kind: str, folder: Path) -> Callable[..., Tensor]:
    task = model.tasks - 1
    weights = task_weights(model, task)
    if kind == "onnx":
        save_onnx(weights, model, task, some_text(7, 6), folder)
        return lambda ids, mask: onnx_logits(folder, ids, mask)
    config = labelled(model.encoder.config, CLASSES)
    head = require_stock(weights, config, model.adapted.pooling)
    if kind == "peft":
        return save_peft(weights, config, head, folder, base=None)
    return save_transformers(weights, config, head, folder)


def assert_same_logits(model: ContinualClassifier, found: Callable[..., Tensor]) -> None:
    for lengths in ((3,), (7, 4, 12), (1, 30)):
        ids, mask = some_text(*lengths, seed=2)
        with torch.no_grad():
            expected = model(ids, mask, model.tasks - 1)
            torch.testing.assert_close(found(ids, mask), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["transformers", "peft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_has_the_logits_of_the_run(
    family: str, kind: str, tmp_path: Path
) -> None:
    model = learned(family, shared="layernorm")
    assert_same_logits(model, exported(model, kind, tmp_path))


@pytest.mark.parametrize("kind", ["transformers", "peft"])
@pytest.mark.parametrize(
    "options",
    [
        {"composition": "cumulative"},
        {"shared": "embeddings"},
        {"shared": "lora"},
        {"shared": "lora", "composition": "cumulative"},
        {"joint": True},
        {"lora_alpha": 3},
    ],
    ids=str,
)
def test_every_composition_has_the_logits_of_the_run(
    options: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    model = learned(**options, tasks=3)
    assert_same_logits(model, exported(model, kind, tmp_path))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"shared": "layernorm", "composition": "cumulative"}),
        ("bert", {"lateral_rank": 4}),
        ("bert", {"lateral_rank": 4, "composition": "cumulative", "pooling": "mean"}),
        ("distilbert", {"shared": "lora", "pooling": "mean"}),
        ("deberta-v2", {}),
    ],
    ids=str,
)
def test_onnx_has_the_logits_of_the_run_for_any_batch_and_length(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = learned(family, **options, tasks=3)
    for lateral in model.laterals.values():
        lateral.load_state_dict({**lateral.state_dict(), "gate": torch.full((1,), 0.7)})
    assert_same_logits(model, exported(model, "onnx", tmp_path))


def test_weights_that_training_changed_as_a_whole_are_merged_and_no_adapter(tmp_path: Path) -> None:
    model = learned(shared="all", task_adapters=False)
    assert_same_logits(model, exported(model, "transformers", tmp_path / "whole"))
    with pytest.raises(ModelError, match=r"no adapters to export; use --format transformers"):
        exported(model, "peft", tmp_path / "none")
    both = learned(shared="query")
    assert_same_logits(both, exported(both, "transformers", tmp_path / "both"))
    with pytest.raises(ModelError, match=r"query itself as well as its adapter.* transformers"):
        exported(both, "peft", tmp_path / "both-peft")


@pytest.mark.parametrize("kind", ["transformers", "peft"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lateral_rank": 4}, "lateral connection .* --format onnx"),
        ({"pooling": "mean"}, "averages all tokens.* --format onnx"),
    ],
    ids=str,
)
def test_what_no_stock_model_computes_is_refused(
    options: dict[str, Any], kind: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        exported(learned(**options), kind, tmp_path)


def test_an_adapter_for_a_base_on_the_hub_holds_all_that_training_changed(tmp_path: Path) -> None:
    """The base has the weights that it had before training, and none are exported."""
    model = learned(shared="layernorm")
    weights = task_weights(model, 1)
    config = labelled(model.encoder.config, CLASSES)
    head = require_stock(weights, config, "cls")
    save_peft(weights, config, head, tmp_path / "adapter", base="owner/name")
    assert not (tmp_path / "adapter" / "base").exists()
    adapter = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert adapter["base_model_name_or_path"] == "owner/name"
    tiny_encoder().save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", config=config)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert_same_logits(model, lambda ids, mask: loaded(input_ids=ids, attention_mask=mask).logits)


def test_the_first_task_of_a_run_with_lateral_connections_has_none(tmp_path: Path) -> None:
    model = learned(lateral_rank=4, tasks=1)
    assert_same_logits(model, exported(model, "transformers", tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
def test_a_head_of_any_size_passes_through_the_activation(family: str, size: float) -> None:
    """Also logits that are far larger or smaller than those of training."""
    encoder = tiny_encoder(family)
    head = nn.Linear(HIDDEN, 3)
    with torch.no_grad():
        head.weight.mul_(size)
    head.requires_grad_(False)
    model: Any = _classifier(labelled(encoder.config, CLASSES), encoder.state_dict())
    place_head(model, head, stock_head(model.config))
    ids, mask = some_text(5, 9)
    with torch.no_grad():
        expected = head(encoder.eval()(ids, attention_mask=mask).last_hidden_state[:, 0])
        found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=4e-7 * size)


def test_more_classes_than_a_head_has_units_for_are_refused() -> None:
    encoder = tiny_encoder("distilbert")
    many = HIDDEN // 2 + 1
    classes = tuple(map(str, range(many)))
    model: Any = _classifier(labelled(encoder.config, classes), encoder.state_dict())
    with pytest.raises(ModelError, match=f"{many} classes need {2 * many} units .* onnx"):
        place_head(model, nn.Linear(HIDDEN, many), stock_head(model.config))


def test_an_architecture_without_a_known_head_is_refused() -> None:
    assert {*FAMILIES} <= {*STOCK_HEADS}
    config = labelled(tiny_encoder().config, CLASSES)
    config.model_type = "unheard-of"
    with pytest.raises(ModelError, match=r"no head .* unheard-of .* use --format onnx"):
        stock_head(config)
