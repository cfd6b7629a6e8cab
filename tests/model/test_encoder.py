from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

import encoders
import tiny
from plora_cl.errors import ModelError
from plora_cl.model.encoder import (
    adapter_targets,
    load_encoder,
    load_tokenizer,
    require_positions,
    shared_names,
)
from plora_cl.model.locations import resolve_packaged
from plora_cl.pretrained.loading import longest_input

LAYERS = {
    "distilbert": "transformer.layer.{}.attention.{}",
    "bert": "encoder.layer.{}.attention.{}",
    "roberta": "encoder.layer.{}.attention.{}",
    "electra": "encoder.layer.{}.attention.{}",
    "deberta-v2": "encoder.layer.{}.attention.{}",
    "mpnet": "encoder.layer.{}.attention.{}",
    "albert": "encoder.albert_layer_groups.0.albert_layers.0.attention.{1}",
}
PROJECTIONS = {
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin"],
    "deberta-v2": ["self.query_proj", "self.key_proj", "self.value_proj", "output.dense"],
    "mpnet": ["attn.q", "attn.k", "attn.v", "attn.o"],
    "albert": ["query", "key", "value", "dense"],
}
BERT_PROJECTIONS = ["self.query", "self.key", "self.value", "output.dense"]


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_exactly_the_attention_projections_are_adapted(family: str) -> None:
    layers = range(1 if family == "albert" else encoders.LAYERS)
    expected = {
        LAYERS[family].format(layer, projection)
        for layer in layers
        for projection in PROJECTIONS.get(family, BERT_PROJECTIONS)
    }
    targets = adapter_targets(encoders.tiny_encoder(family))
    assert len(targets) == len(expected)
    assert set(targets) == expected


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_feed_forward_layers_are_never_adapted(family: str) -> None:
    encoder = encoders.tiny_encoder(family)
    for name in adapter_targets(encoder):
        layer = encoder.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        assert (layer.in_features, layer.out_features) == (encoders.HIDDEN, encoders.HIDDEN)


def test_named_endings_replace_the_detection() -> None:
    targets = adapter_targets(encoders.tiny_encoder("bert"), ["query", "intermediate.dense"])
    assert targets == [
        f"encoder.layer.{layer}.{name}"
        for layer in range(encoders.LAYERS)
        for name in ("attention.self.query", "intermediate.dense")
    ]


def test_an_ending_is_a_whole_name_and_not_a_part_of_one() -> None:
    with pytest.raises(ModelError, match="'uery' matches no linear layer"):
        adapter_targets(encoders.tiny_encoder("bert"), ["uery"])


def test_an_unknown_architecture_asks_for_the_names_of_its_layers() -> None:
    encoder = nn.ModuleDict({"blocks": nn.Sequential(nn.Linear(2, 2))})
    with pytest.raises(ModelError, match=r"lora_target_modules: .*name them.*blocks\.0"):
        adapter_targets(encoder)


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_the_shared_layernorms_are_weights_and_biases_of_every_layer_norm(family: str) -> None:
    encoder = encoders.tiny_encoder(family)
    norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
    parameters = dict(encoder.named_parameters())
    found = [parameters[name] for name in shared_names(encoder, "layernorm")]
    assert len(found) == 2 * len(norms)
    owned = {id(p) for norm in norms for p in norm.parameters()}
    assert {id(p) for p in found} == owned


def test_the_shared_set_can_be_nothing_the_embeddings_or_a_pattern() -> None:
    encoder = encoders.tiny_encoder("distilbert")
    assert shared_names(encoder, "none") == []
    assert shared_names(encoder, "embeddings") == [
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
    ]
    assert shared_names(encoder, r"layer\.1\.ffn\.lin2") == [
        "transformer.layer.1.ffn.lin2.weight",
        "transformer.layer.1.ffn.lin2.bias",
    ]


def test_a_shared_set_that_matches_nothing_is_an_error_that_shows_names() -> None:
    with pytest.raises(ModelError, match=r"shared: 'layer_norms' matches no .*embeddings"):
        shared_names(encoders.tiny_encoder("bert"), "layer_norms")


def test_an_encoder_comes_from_a_folder_in_float32_and_without_a_pooler(tmp_path: Path) -> None:
    folder = tiny.make_encoder(tmp_path / "model")
    encoder = load_encoder(str(folder))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert getattr(encoder, "pooler", None) is None
    assert load_tokenizer(str(folder))("cat")["input_ids"]


def test_a_folder_that_is_not_there_is_an_error_that_names_a_way_out(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=f"{re.escape(missing)}.*--preset quickstart"):
        load_encoder(missing)


def test_a_packaged_model_that_does_not_exist_is_an_error_with_those_that_do() -> None:
    with pytest.raises(ModelError, match="packaged:minilm-l6"):
        resolve_packaged("packaged:minilm")


def test_other_names_are_left_as_they_are() -> None:
    assert resolve_packaged("distilbert-base-uncased") == "distilbert-base-uncased"


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_the_longest_text_is_as_long_as_there_are_positions(family: str) -> None:
    encoder = encoders.tiny_encoder(family).eval()
    limit = longest_input(encoder)
    # Of 48 positions RoBERTa and MPNet leave two to what lies before the first token.
    assert limit == (46 if family in ("roberta", "mpnet") else 48)
    require_positions(encoder, limit)
    encoder(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=torch.full((1, limit + 1), 5))
    with pytest.raises(ModelError, match=f"max_length: {limit + 1} .* --set max_length={limit}$"):
        require_positions(encoder, limit + 1)


@pytest.mark.parametrize(
    ("family", "own"),
    [
        ("deberta-v2", {"relative_attention": True, "position_biased_input": False}),
        ("modernbert", {"pad_token_id": 0, "global_attn_every_n_layers": 1}),
    ],
)
def test_relative_and_rotary_positions_have_no_end(family: str, own: dict[str, Any]) -> None:
    config = AutoConfig.for_model(
        family,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=100,
        max_position_embeddings=48,
        **own,
    )
    encoder = AutoModel.from_config(config).eval()
    assert longest_input(encoder) is None
    require_positions(encoder, 100)
    encoder(input_ids=torch.full((1, 100), 5))


@pytest.mark.parametrize("place", ["", "models/"])
def test_a_mistyped_folder_is_told_which_one_was_perhaps_meant(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = Path(place, "enc")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=re.escape(f"did you mean ./{place}enc?")) as caught:
        load_tokenizer(f"{place}encc")
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(seconds: float) -> None:
        pytest.fail(f"waits {seconds} s before it tries again")

    monkeypatch.setattr("time.sleep", wait)
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(ModelError, match="no such folder, and the model hub cannot be reached: "):
        load_encoder("nobody/no-such-model")
