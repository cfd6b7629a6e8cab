from __future__ import annotations

import pytest
import torch
from torch import Tensor

import encoders
from encoders import learn_something, some_text, tiny_model
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.pooling import middle_layers, token_mean


def plain(model: ContinualClassifier, ids: Tensor, mask: Tensor | None) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model.adapted.plain_layers(ids, mask, shared={})


@pytest.mark.parametrize(
    ("depth", "layers"), [(1, [1]), (2, [1, 2]), (4, [2, 3]), (6, [3, 5]), (12, [6, 10])]
)
def test_layers_at_a_half_and_at_five_sixths_are_read(depth: int, layers: list[int]) -> None:
    assert middle_layers(depth) == layers


def test_padding_is_not_averaged() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert token_mean(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0]]
    assert token_mean(hidden[:, :2], None).tolist() == [[2.0]]


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_plain_layers_are_the_layers_of_every_family(family: str) -> None:
    ids, mask = some_text(4, 7)
    model = tiny_model(family)
    found = plain(model, ids, mask)
    assert found.shape == (2, 2, encoders.HIDDEN)
    with torch.no_grad():
        last = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[:, 1], token_mean(last, mask))
    assert (found[:, 0] - found[:, 1]).abs().max() > 0.01


def test_neither_adapters_nor_shared_values_that_moved_reach_them() -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    initial = {name: p.detach().clone() for name, p in model.shared_parameters().items()}
    before = plain(model, *some_text(4, 7))
    learn_something(model)
    assert not torch.equal(plain(model, *some_text(4, 7)), before)
    with torch.no_grad():
        after = model.adapted.plain_layers(*some_text(4, 7), shared=initial)
    assert torch.equal(after, before)
