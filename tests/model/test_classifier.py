from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import encoders
from encoders import learn_something, some_text, tiny_model
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import RandomState


def logits(model: ContinualClassifier, task: int, *lengths: int) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(*some_text(*(lengths or (4, 7))), task)


def snapshot(model: ContinualClassifier) -> dict[str, Tensor]:
    return {
        f"{part}/{name}": tensor.clone()
        for part, tensors in model.parts().items()
        for name, tensor in tensors.state_dict().items()
    }


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_every_family_learns_several_tasks_with_one_adapter_each(family: str) -> None:
    model = tiny_model(family, tasks=(2, 3), shared="layernorm")
    model.train()
    output = model(*some_text(5, 3), 1)
    assert output.shape == (2, 3)
    output.square().sum().backward()
    learning = model.trainable()
    assert [name for name, p in learning.items() if p.grad is None] == []
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in learning.values()
    }


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_a_fresh_adapter_changes_nothing(family: str) -> None:
    model = tiny_model(family, tasks=(2,))
    ids, mask = some_text(4, 7)
    model.eval()
    with torch.no_grad():
        adapted, plain = (
            model.adapted.features(ids, mask, [0]),
            model.adapted.features(ids, mask, []),
        )
        original = encoders.tiny_encoder(family).eval()(input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(adapted, plain, rtol=0, atol=0)
    torch.testing.assert_close(plain, original.last_hidden_state[:, 0], rtol=0, atol=0)


def test_there_is_one_base_in_memory_however_many_tasks() -> None:
    one, four = tiny_model(tasks=(2,)), tiny_model(tasks=(2, 2, 2, 2))
    base = sum(p.numel() for p in encoders.tiny_encoder().parameters())

    def size(model: ContinualClassifier) -> int:
        return sum(p.numel() for p in model.parameters())

    adapter_and_head = size(one) - base
    assert size(four) == base + 4 * adapter_and_head
    assert adapter_and_head < base / 10


def test_growing_depends_on_the_seed_and_the_task_alone_and_draws_nothing() -> None:
    RandomState.seeded(7)
    before = RandomState().state_dict()
    first = tiny_model(tasks=(2, 3))
    after = RandomState().state_dict()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"]["keys"], after["numpy"]["keys"])
    assert torch.equal(before["python"]["internal"], after["python"]["internal"])
    torch.manual_seed(12345)
    second = tiny_model(tasks=(5, 3))
    for part in ("adapter-0", "adapter-1", "head-1"):
        assert_same(
            first.parts()[part].state_dict(),
            second.parts()[part].state_dict(),
        )
    other = tiny_model(tasks=(2, 3), seed=2)
    assert not torch.equal(
        other.heads[0].get_parameter("weight"), first.heads[0].get_parameter("weight")
    )
    a = first.adapters.a_matrices(0), first.adapters.a_matrices(1), other.adapters.a_matrices(0)
    layer = next(iter(a[0]))
    assert not torch.equal(a[0][layer], a[1][layer])
    assert not torch.equal(a[0][layer], a[2][layer])


def test_growing_leaves_earlier_tasks_as_they_were() -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    learn_something(model)
    before, predicted = snapshot(model), logits(model, 0)
    model.grow(3)
    after = snapshot(model)
    assert_same(before, {name: after[name] for name in before})
    torch.testing.assert_close(logits(model, 0), predicted, rtol=0, atol=0)


def test_earlier_adapters_and_heads_and_the_base_are_frozen() -> None:
    model = tiny_model(tasks=(2, 2, 2), shared="layernorm")
    learning = {id(p) for p in model.trainable().values()}
    learned = {
        name
        for name, part in model.parts().items()
        if any(t.requires_grad for t in part.state_dict().values())
    }
    assert learned == {"shared", "adapter-2", "head-2"}
    for task in (0, 1):
        own = [*model.adapters.parameters(task).values(), *model.heads[task].parameters()]
        assert not any(p.requires_grad or id(p) in learning for p in own)
    prefixes = {name.split(".")[0] for name in model.trainable()}
    assert prefixes == {"shared", "adapter-2", "head-2"}


def test_isolated_predictions_depend_on_the_adapter_of_the_task_alone() -> None:
    model = tiny_model(tasks=(2,))
    learn_something(model)
    predicted = logits(model, 0)
    model.grow(2)
    learn_something(model)
    torch.testing.assert_close(logits(model, 0), predicted, rtol=0, atol=0)
    assert model.adapters_for(0) == [0]
    assert model.adapters_for(5) == []


def test_cumulative_predictions_use_the_sum_of_all_adapters() -> None:
    model = tiny_model(tasks=(2, 2), composition="cumulative", lora_alpha=4, lora_r=2)
    learn_something(model)
    with torch.no_grad():
        for parameter in model.adapters.parameters(0).values():
            parameter.add_(0.05)
    assert model.adapters_for(0) == model.adapters_for(1) == model.adapters_for(9) == [0, 1]
    merged = encoders.tiny_encoder()
    with torch.no_grad():
        for task in (0, 1):
            matrices = model.adapters.parameters(task)
            for layer in model.adapters.a_matrices(task):
                weight = merged.get_submodule(layer).get_parameter("weight")
                weight.add_(matrices[f"{layer}.lora_B"] @ matrices[f"{layer}.lora_A"], alpha=2)
        ids, mask = some_text(4, 7)
        hidden = merged.eval()(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        expected = model.heads[0](hidden)
    torch.testing.assert_close(logits(model, 0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("composition", ["isolated", "cumulative"])
def test_predictions_do_not_depend_on_what_was_predicted_before(composition: str) -> None:
    model = tiny_model(tasks=(2, 2, 2), composition=composition)
    for parameter in model.adapters.parameters(1).values():
        nn.init.ones_(parameter)
    learn_something(model)
    alone = [logits(model, task) for task in range(3)]
    assert not torch.equal(alone[0], alone[1])
    for task in (2, 0, 1, 1, 2, 0):
        torch.testing.assert_close(logits(model, task), alone[task], rtol=0, atol=0)
    model.adapted.features(*some_text(3), [])
    torch.testing.assert_close(logits(model, 1), alone[1], rtol=0, atol=0)


def test_growing_after_a_prediction_gives_what_growing_at_once_gives() -> None:
    once = tiny_model(tasks=(2, 2, 2))
    interleaved = tiny_model(tasks=(2,))
    logits(interleaved, 0)
    interleaved.grow(2)
    logits(interleaved, 0)
    interleaved.grow(2)
    assert_same(snapshot(once), snapshot(interleaved))
    assert {n for n, p in once.named_parameters() if p.requires_grad} == {
        n for n, p in interleaved.named_parameters() if p.requires_grad
    }


def test_only_the_adapter_in_training_drops_inputs() -> None:
    model = tiny_model(tasks=(2, 2), composition="cumulative", lora_dropout=0.5)
    with torch.no_grad():
        for task in (0, 1):
            for parameter in model.adapters.parameters(task).values():
                parameter.fill_(0.1)
    _without_encoder_dropout(model)
    ids, mask = some_text(6, 6)

    def twice(adapters: list[int]) -> tuple[Tensor, Tensor]:
        return model.adapted.features(ids, mask, adapters), model.adapted.features(
            ids, mask, adapters
        )

    model.train()
    assert torch.equal(*twice([0]))
    assert not torch.equal(*twice([1]))
    model.eval()
    assert torch.equal(*twice([1]))


def _without_encoder_dropout(model: ContinualClassifier) -> None:
    for name, module in model.encoder.named_modules():
        if isinstance(module, nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


def test_mean_pooling_ignores_padding() -> None:
    model = tiny_model(tasks=(2,), pooling="mean")
    ids, mask = some_text(4, 9)
    model.eval()
    with torch.no_grad():
        padded = model(ids, mask, 0)
        alone = model(ids[:1, :4], mask[:1, :4], 0)
        unmasked = model(ids[:1, :4], None, 0)
    torch.testing.assert_close(padded[:1], alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(unmasked, alone, rtol=1e-5, atol=1e-6)


def test_pooling_takes_the_first_token_or_the_mean_of_the_text() -> None:
    ids, mask = some_text(4, 9)
    encoder = encoders.tiny_encoder().eval()
    with torch.no_grad():
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = {
        "cls": hidden[:, 0],
        "mean": torch.stack([hidden[0, :4].mean(0), hidden[1].mean(0)]),
    }
    for pooling, value in expected.items():
        model = tiny_model(tasks=(2,), pooling=pooling).eval()
        with torch.no_grad():
            torch.testing.assert_close(model.adapted.features(ids, mask, [0]), value)


def test_the_untrained_head_is_the_one_that_growing_adds() -> None:
    model = tiny_model(tasks=(2,))
    head = model.untrained_head(1, 3)
    model.grow(3)
    grown = model.heads[1]
    assert torch.equal(head.weight, grown.get_parameter("weight"))
    assert torch.equal(head.bias, grown.get_parameter("bias"))


def test_the_parts_hold_every_tensor_once() -> None:
    model = tiny_model(tasks=(2, 3), shared="layernorm")
    held = [t for part in model.parts().values() for t in part.state_dict().values()]
    pointers = [t.data_ptr() for t in held]
    assert len(set(pointers)) == len(pointers)
    assert {p.data_ptr() for p in model.parameters()} <= set(pointers)
    assert set(model.parts()) == {
        "base",
        "shared",
        *(f"{k}-{i}" for k in ("adapter", "head") for i in (0, 1)),
    }


def test_parts_restore_a_twin_to_the_bit() -> None:
    model = tiny_model(tasks=(2, 3), shared="layernorm")
    learn_something(model)
    twin = tiny_model(tasks=(2, 3), shared="layernorm", seed=99)
    for name, part in twin.parts().items():
        part.load_state_dict(model.parts()[name].state_dict())
    assert_same(snapshot(model), snapshot(twin))
    for task in (0, 1):
        torch.testing.assert_close(logits(model, task), logits(twin, task), rtol=0, atol=0)


def test_parts_of_another_shape_are_refused() -> None:
    small, large = tiny_model(tasks=(2,)), tiny_model(tasks=(2,), lora_r=4)
    with pytest.raises(IncompatibleCheckpointError, match=r"size mismatch: .*lora_A"):
        large.parts()["adapter-0"].load_state_dict(small.parts()["adapter-0"].state_dict())


def test_the_base_part_follows_tensors_that_were_moved() -> None:
    model = tiny_model(tasks=(2,))
    moved: nn.Module = model
    moved._apply(torch.clone)  # what a move to another device does
    live = {t.data_ptr() for t in (*model.encoder.parameters(), *model.encoder.buffers())}
    assert {t.data_ptr() for t in model.parts()["base"].state_dict().values()} <= live
