"""Models that share an adapter or the whole encoder, own nothing but heads, or learn jointly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import encoders
from encoders import learn_something, some_text, tiny_encoder, tiny_model
from plora_cl.errors import ModelError
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import RandomState


def logits(model: ContinualClassifier, task: int) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(*some_text(4, 7), task)


def reached(model: ContinualClassifier, task: int) -> set[str]:
    """Return the parts that the gradient of ``task`` reaches."""
    model.zero_grad()
    model.train()
    model(*some_text(5, 3), task).square().sum().backward()
    return {
        name
        for name, part in model.parts().items()
        if any(t.grad is not None for t in part.state_dict().values() if t.is_leaf)
    }


@pytest.mark.parametrize("composition", ["isolated", "cumulative"])
@pytest.mark.parametrize("task_adapters", [True, False])
def test_a_shared_adapter_changes_nothing_at_first(composition: str, task_adapters: bool) -> None:
    options: dict[str, Any] = {"composition": composition, "task_adapters": task_adapters}
    plain = tiny_model(tasks=(2, 3), **options)
    sharing = tiny_model(tasks=(2, 3), shared="lora", **options)
    for task in (0, 1):
        torch.testing.assert_close(logits(sharing, task), logits(plain, task), rtol=0, atol=0)
    own = [name for task in (0, 1) for name in plain.parts_of(task)]
    for name in own:
        for key, tensor in plain.part(name).state_dict().items():
            assert torch.equal(tensor, sharing.part(name).state_dict()[key])


def test_a_shared_adapter_depends_on_the_seed_alone_and_draws_nothing() -> None:
    RandomState.seeded(7)
    before = torch.get_rng_state()
    first = tiny_model(shared="lora").shared_parameters()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12345)
    again = tiny_model(shared="lora", tasks=(2,)).shared_parameters()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = tiny_model(shared="lora", seed=2).shared_parameters()
    own = tiny_model(shared="lora", tasks=(2,)).adapters.parameters(0)
    for name in [name for name in first if name.endswith("lora_A")]:
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name], own[name.removeprefix("shared_lora.")])
    assert {name.split(".")[0] for name in first} == {"shared_lora"}


@pytest.mark.parametrize("task_adapters", [True, False])
def test_a_shared_adapter_acts_on_every_task_and_on_plain_features(task_adapters: bool) -> None:
    model = tiny_model(tasks=(2, 3), shared="lora", task_adapters=task_adapters)
    before = [logits(model, task) for task in (0, 1)]
    ids, mask = some_text(4, 7)
    initial = {name: p.detach().clone() for name, p in model.shared_parameters().items()}
    with torch.no_grad():
        plain = model.adapted.features(ids, mask, ())
        for parameter in model.shared_parameters().values():
            parameter.add_(0.1)
        moved = model.adapted.features(ids, mask, ())
        put_back = model.adapted.features(ids, mask, (), shared=initial)
    assert not torch.equal(moved, plain)
    torch.testing.assert_close(put_back, plain, rtol=0, atol=0)
    for task in (0, 1):
        assert not torch.equal(logits(model, task), before[task])


def test_a_shared_adapter_contributes_its_scaled_product() -> None:
    model = tiny_model(tasks=(2,), shared="lora", task_adapters=False, lora_alpha=4, lora_r=2)
    learn_something(model)
    merged = tiny_encoder()
    shared = model.shared_parameters()
    with torch.no_grad():
        for name in [name for name in shared if name.endswith(".lora_A")]:
            path = name.removesuffix(".lora_A")
            layer = path.removeprefix("shared_lora.")
            weight = merged.get_submodule(layer).get_parameter("weight")
            weight.add_(shared[f"{path}.lora_B"] @ shared[name], alpha=2)
        ids, mask = some_text(4, 7)
        hidden = merged.eval()(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        torch.testing.assert_close(model.eval().adapted.features(ids, mask, ()), hidden)


def test_the_shared_adapter_drops_inputs_in_training_and_an_earlier_one_does_not() -> None:
    model = tiny_model(tasks=(2, 2), shared="lora", composition="isolated", lora_dropout=0.5)
    with torch.no_grad():
        for part in ("shared", "adapter-0", "adapter-1"):
            for tensor in model.part(part).state_dict().values():
                tensor.fill_(0.1)
    for name, module in model.encoder.named_modules():
        if isinstance(module, nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0
    ids, mask = some_text(6, 6)
    model.train()
    assert not torch.equal(
        model.adapted.features(ids, mask, ()), model.adapted.features(ids, mask, ())
    )
    for parameter in model.shared_parameters().values():
        nn.init.zeros_(parameter)
    assert torch.equal(
        model.adapted.features(ids, mask, [0]), model.adapted.features(ids, mask, [0])
    )
    assert not torch.equal(
        model.adapted.features(ids, mask, [1]), model.adapted.features(ids, mask, [1])
    )


@pytest.mark.parametrize("family", encoders.FAMILIES)
@pytest.mark.parametrize("task_adapters", [True, False])
@pytest.mark.parametrize("shared", ["all", "lora"])
def test_the_gradient_reaches_all_that_is_shared(
    family: str, task_adapters: bool, shared: str
) -> None:
    model = tiny_model(family, tasks=(2, 3), shared=shared, task_adapters=task_adapters)
    learn_something(model)
    model.train()
    model(*some_text(5, 3), 1).square().sum().backward()
    learning = model.trainable()
    assert [name for name, p in learning.items() if p.grad is None] == []
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in learning.values()
    }
    if shared == "all":
        base = model.part("base").state_dict().values()
        assert not any(isinstance(tensor, nn.Parameter) for tensor in base)
        assert len(model.shared_parameters()) == len(list(tiny_encoder(family).parameters()))


def test_without_adapters_of_its_own_a_task_is_a_head() -> None:
    model = tiny_model(tasks=(2, 3), task_adapters=False)
    assert set(model.parts()) == {"base", "shared", "head-0", "head-1"}
    assert model.adapters_for(1) == model.adapters_for(9) == []
    assert model.dependencies(1) == ["shared"]
    assert {n for n, _ in model.named_parameters() if "lora" in n} == set()
    assert reached(model, 1) == {"head-1"}
    encoder = tiny_encoder().eval()
    ids, mask = some_text(4, 7)
    with torch.no_grad():
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        expected = model.heads[1](hidden)
    torch.testing.assert_close(logits(model, 1), expected, rtol=0, atol=0)


@pytest.mark.parametrize("shared", ["lora", "all", "layernorm"])
def test_what_is_shared_learns_from_every_task_and_an_earlier_head_does_not(shared: str) -> None:
    model = tiny_model(tasks=(2, 3), shared=shared, task_adapters=False)
    assert reached(model, 0) == {"shared"}
    assert reached(model, 1) == {"shared", "head-1"}


def test_an_encoder_without_adapters_needs_no_known_layer_names() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(2, 2)])

    ContinualClassifier(Plain(), task_adapters=False)
    for options in ({"task_adapters": True}, {"task_adapters": False, "shared": "lora"}):
        with pytest.raises(ModelError, match="lora_target_modules"):
            ContinualClassifier(Plain(), **options)


def test_lateral_connections_without_adapters_are_an_error_that_names_the_ways_out() -> None:
    with pytest.raises(ModelError, match=r"task_adapters: true, or use_lateral: false"):
        tiny_model(task_adapters=False, lateral_rank=2)


@pytest.mark.parametrize("task_adapters", [True, False])
def test_in_joint_training_every_task_keeps_learning(task_adapters: bool) -> None:
    model = tiny_model(tasks=(2, 3, 2), joint=True, shared="lora", task_adapters=task_adapters)
    assert model.learning == range(3)
    for task in range(3):
        assert reached(model, task) == {"shared", *model.parts_of(task)}
    own = [name for task in range(3) for name in model.parts_of(task)]
    assert {name.split(".")[0] for name in model.trainable()} == {"shared", *own}


def test_one_after_the_other_the_last_task_alone_is_learning() -> None:
    model = tiny_model()
    assert model.learning == range(0)
    for task in range(3):
        model.grow(2)
        assert model.learning == range(task, task + 1)


def test_in_joint_training_every_adapter_drops_inputs() -> None:
    model = tiny_model(tasks=(2, 2), joint=True, lora_dropout=0.5)
    with torch.no_grad():
        for task in (0, 1):
            for parameter in model.adapters.parameters(task).values():
                parameter.fill_(0.1)
    for name, module in model.encoder.named_modules():
        if isinstance(module, nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0
    model.train()
    ids, mask = some_text(6, 6)
    for task in (0, 1):
        first, second = (model.adapted.features(ids, mask, [task]) for _ in range(2))
        assert not torch.equal(first, second)


def test_joint_training_starts_from_what_a_stream_starts_from() -> None:
    joint, stream = tiny_model(tasks=(2, 3), joint=True), tiny_model(tasks=(2, 3))
    for name, part in stream.parts().items():
        for key, tensor in part.state_dict().items():
            assert torch.equal(tensor, joint.part(name).state_dict()[key])
