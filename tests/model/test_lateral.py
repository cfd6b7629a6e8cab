from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import encoders
from encoders import learn_something, some_batch, some_text, tiny_model
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import RandomState

COMPOSITIONS = pytest.mark.parametrize("composition", ["isolated", "cumulative"])


def lateral_model(*tasks: int, **options: Any) -> ContinualClassifier:
    """Return a model with lateral connections that learned all tasks but the last."""
    model = tiny_model(**{"lateral_rank": 3, "lora_dropout": 0.5, **options})
    for task, classes in enumerate(tasks):
        model.grow(classes)
        if task < len(tasks) - 1:
            learn_something(model)
    return model


def without_lateral(model: ContinualClassifier, **options: Any) -> ContinualClassifier:
    """Return a model with the same weights and no lateral connections."""
    twin = tiny_model(**{"lora_dropout": 0.5, "composition": model.composition, **options})
    for head in model.heads:
        twin.grow(len(head.get_parameter("weight")))
    for name, part in twin.parts().items():
        part.load_state_dict(model.part(name).state_dict())
    return twin


def logits(model: ContinualClassifier, task: int) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(*some_text(4, 7), task)


def loss_of(model: ContinualClassifier, task: int) -> Tensor:
    batch = some_batch(4, 7, 5, task=task)
    return functional.cross_entropy(
        model(batch.input_ids, batch.attention_mask, task).float(), batch.labels
    )


def gradients(model: ContinualClassifier, task: int) -> dict[str, Tensor]:
    """Return the gradient of a training batch by every trainable parameter."""
    RandomState.seeded(3)
    model.train()
    loss = loss_of(model, task)
    wanted = model.trainable()
    found = torch.autograd.grad(loss, list(wanted.values()))
    return {"loss": loss.detach(), **dict(zip(wanted, found, strict=True))}


def _open(model: ContinualClassifier, task: int) -> None:
    with torch.no_grad():
        model.part(f"lateral-{task}").state_dict()["gate"].fill_(1.5)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


@COMPOSITIONS
@pytest.mark.parametrize("shared", ["none", "layernorm"])
def test_a_closed_gate_changes_no_bit_of_predictions_loss_and_gradients(
    composition: str, shared: str
) -> None:
    model = lateral_model(2, 3, 2, composition=composition, shared=shared)
    with torch.no_grad():
        model.part("lateral-1").state_dict()["gate"].zero_()  # as if it had stayed closed
    plain = without_lateral(model, shared=shared)
    for task in range(4):
        if task < 3:
            assert bits(logits(model, task)) == bits(logits(plain, task))
        else:
            ids, mask = some_text(4, 7)
            assert bits(model.represent(ids, mask, 3)) == bits(plain.represent(ids, mask, 3))
    with_it, without = gradients(model, 2), gradients(plain, 2)
    added = {"lateral-2.down.weight", "lateral-2.down.bias", "lateral-2.up.weight"}
    assert with_it.keys() - without.keys() == {*added, "lateral-2.up.bias", "lateral-2.gate"}
    assert [n for n, g in without.items() if not torch.equal(g, with_it[n])] == []
    assert torch.equal(torch.get_rng_state(), _generator_after(plain))


def _generator_after(model: ContinualClassifier) -> Tensor:
    gradients(model, 2)
    return torch.get_rng_state()


@COMPOSITIONS
def test_the_gradient_reaches_the_gate_at_once_and_the_network_after_one_step(
    composition: str,
) -> None:
    model = lateral_model(2, 2, composition=composition)
    first = gradients(model, 1)
    assert first["lateral-1.gate"].abs().item() > 0
    assert not any(
        g.any() for n, g in first.items() if n.startswith(("lateral-1.d", "lateral-1.u"))
    )
    before = {n: t.clone() for n, t in model.part("lateral-1").state_dict().items()}
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=0.01, weight_decay=0.0)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model, 1).backward()
        optimizer.step()
    assert [n for n, t in model.part("lateral-1").state_dict().items() if t.equal(before[n])] == []


@COMPOSITIONS
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_connection_is_the_published_formula(composition: str, pooling: Any) -> None:
    model = lateral_model(2, 2, 2, composition=composition, pooling=pooling)
    learn_something(model)
    _open(model, 2)
    ids, mask = some_text(4, 7)
    columns = {
        "isolated": ([0], [1], [2]),
        "cumulative": ([0], [0, 1], [0, 1, 2]),
    }[composition]
    seen = [_plain_features(model, adapters, ids, mask, pooling) for adapters in columns]
    p = {name: t.detach().double() for name, t in model.part("lateral-2").state_dict().items()}
    joined = torch.cat([seen[2], (seen[0] + seen[1]) / 2], 1)
    between = joined @ p["down.weight"].T + p["down.bias"]
    between = between * 0.5 * (1 + torch.erf(between / 2**0.5))
    expected = seen[2] + p["gate"] * (between @ p["up.weight"].T + p["up.bias"])
    model.eval()
    with torch.no_grad():
        found = model.represent(ids, mask, 2)
    assert (expected - seen[2]).abs().max() > 0.1
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def _plain_features(
    model: ContinualClassifier, adapters: list[int], ids: Tensor, mask: Tensor, pooling: str
) -> Tensor:
    """Return features of an encoder of float64 into which ``adapters`` are merged."""
    merged = encoders.tiny_encoder().double().eval()
    with torch.no_grad():
        for task in adapters:
            matrices = model.adapters.parameters(task)
            for layer in model.adapters.a_matrices(task):
                weight = merged.get_submodule(layer).get_parameter("weight")
                b, a = matrices[f"{layer}.lora_B"], matrices[f"{layer}.lora_A"]
                weight.add_(b.double() @ a.double(), alpha=2)
        hidden = merged(input_ids=ids, attention_mask=mask).last_hidden_state
    if pooling == "cls":
        return hidden[:, 0]
    return torch.stack([row[m.bool()].mean(0) for row, m in zip(hidden, mask, strict=True)])


def test_earlier_parts_are_frozen_and_earlier_predictions_keep_every_bit() -> None:
    model = lateral_model(2, 2, shared="none")
    learn_something(model)
    before = {name: _copied(model, name) for name in model.parts()}
    predicted = [logits(model, task) for task in (0, 1)]
    model.grow(3)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, 2).backward()
        optimizer.step()
    for name, tensors in before.items():
        assert [n for n, t in tensors.items() if not t.equal(_copied(model, name)[n])] == []
    assert [bits(logits(model, task)) for task in (0, 1)] == [bits(p) for p in predicted]
    assert {name.split(".")[0] for name in model.trainable()} == {
        "adapter-2",
        "head-2",
        "lateral-2",
    }
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in model.trainable().values()
    }


def _copied(model: ContinualClassifier, part: str) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.part(part).state_dict().items()}


@COMPOSITIONS
def test_what_a_connection_reads_depends_on_all_earlier_adapters_and_no_later_one(
    composition: str,
) -> None:
    model = lateral_model(2, 2, 2, 2, composition=composition)
    learn_something(model)
    alone = [logits(model, task) for task in range(4)]
    for task in (3, 0, 2, 1, 1, 3):  # in any order
        assert torch.equal(logits(model, task), alone[task])
    for changed in range(4):
        with torch.no_grad():
            for p in model.adapters.parameters(changed).values():
                p.add_(0.1)
        differs = [not torch.equal(logits(model, task), alone[task]) for task in range(4)]
        needed = [f"adapter-{changed}" in model.dependencies(task) for task in range(4)]
        assert differs == needed
        with torch.no_grad():
            for p in model.adapters.parameters(changed).values():
                p.sub_(0.1)
        alone = [logits(model, task) for task in range(4)]


def test_earlier_features_come_without_dropout_and_leave_modes_and_gradients_alone() -> None:
    model = lateral_model(2, 2, shared="layernorm")
    learn_something(model)
    seen = []
    lateral = model.laterals["1"]
    lateral.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    for _ in range(2):
        model(*some_text(6, 6), 1)
    assert not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    assert seen[0][0].requires_grad
    assert not seen[0][1].requires_grad
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_casts_to_lower_precision_keep_the_gradient_of_shared_matrices() -> None:
    model = lateral_model(2, 2, shared=r"intermediate\.dense\.weight")
    plain = without_lateral(model, shared=r"intermediate\.dense\.weight")
    with torch.autocast("cpu", torch.bfloat16):
        with_it, without = gradients(model, 1), gradients(plain, 1)
    assert [n for n, g in without.items() if not torch.equal(g, with_it[n])] == []
    assert any(n.startswith("shared") and g.any() for n, g in without.items())


def test_the_first_task_has_no_connection() -> None:
    model = lateral_model(2)
    assert set(model.parts()) == {"base", "shared", "adapter-0", "head-0"}
    assert model.dependencies(0) == ["shared", "adapter-0"]
    assert model.part("adapter-0").state_dict().keys() == model.adapters.parameters(0).keys()
    with pytest.raises(KeyError, match="lateral-0"):
        model.part("lateral-0")
    assert gradients(model, 0).keys() == gradients(without_lateral(model), 0).keys()


def test_without_lateral_connections_the_parts_are_named_as_ever() -> None:
    model = tiny_model(tasks=(2, 2))
    own = [f"{kind}-{task}" for task in (0, 1) for kind in ("adapter", "head")]
    assert list(model.parts()) == ["base", "shared", *own]
    assert model.dependencies(1) == ["shared", "adapter-1"]
    with pytest.raises(KeyError, match="lateral-1"):
        model.part("lateral-1")


def test_growing_draws_nothing_and_depends_on_the_seed_and_the_task_alone() -> None:
    RandomState.seeded(7)
    before = torch.get_rng_state()
    first = tiny_model(tasks=(2, 2, 2), lateral_rank=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12345)
    second = tiny_model(tasks=(5, 3), lateral_rank=3)
    one, same = first.part("lateral-1").state_dict(), second.part("lateral-1").state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    other = tiny_model(tasks=(2, 2), lateral_rank=3, seed=2).part("lateral-1").state_dict()
    later = first.part("lateral-2").state_dict()
    for name in ("down.weight", "up.weight"):
        assert one[name].any()
        assert not torch.equal(one[name], other[name])
        assert not torch.equal(one[name], later[name])
    plain = tiny_model(tasks=(2, 2))
    for name, part in plain.parts().items():
        tensors = first.part(name).state_dict()
        assert all(torch.equal(t, tensors[n]) for n, t in part.state_dict().items())


def test_the_parts_hold_every_tensor_once_and_restore_a_twin_to_the_bit() -> None:
    model = lateral_model(2, 3, 2, shared="layernorm")
    learn_something(model)
    held = [t for part in model.parts().values() for t in part.state_dict().values()]
    assert len({t.data_ptr() for t in held}) == len(held)
    assert {p.data_ptr() for p in model.parameters()} <= {t.data_ptr() for t in held}
    twin = tiny_model(tasks=(2, 3, 2), shared="layernorm", lateral_rank=3, seed=99)
    assert isinstance(twin, nn.Module)
    for name, part in twin.parts().items():
        part.load_state_dict(model.part(name).state_dict())
    assert [bits(logits(twin, k)) for k in range(3)] == [bits(logits(model, k)) for k in range(3)]
