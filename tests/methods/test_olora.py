from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from encoders import learn_something, tiny_model
from plora_cl.methods.base import MethodStack
from plora_cl.methods.olora.penalty import OrthogonalLora
from plora_cl.model.classifier import ContinualClassifier


def learned(tasks: int = 3) -> ContinualClassifier:
    model = tiny_model()
    for _ in range(tasks):
        model.grow(2)
        learn_something(model)
    return model


def test_the_first_task_has_no_penalty_and_no_overlap() -> None:
    method, model = OrthogonalLora(strength=1.0), learned(1)
    assert method.penalty(model, 0) is None
    assert method.overlap(model, 0) == 0.0


@pytest.mark.parametrize(("form", "power"), [("absolute", 1), ("squared", 2)])
def test_the_penalty_is_the_sum_over_layers_and_all_earlier_tasks(form: str, power: int) -> None:
    model = learned(3)
    method = OrthogonalLora(strength=0.5, form="squared" if form == "squared" else "absolute")
    expected = 0.5 * sum(
        (old.double() @ model.adapters.a_matrices(2)[layer].double().T).abs().pow(power).sum()
        for task in (0, 1)
        for layer, old in model.adapters.a_matrices(task).items()
    )
    penalty = method.penalty(model, 2)
    assert penalty is not None
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(penalty.double(), expected, rtol=1e-5, atol=0)


def test_the_norm_term_is_the_sum_of_the_norms_of_the_new_matrices() -> None:
    model = learned(3)
    plain = OrthogonalLora(strength=0.5).penalty(model, 2)
    with_norms = OrthogonalLora(strength=0.5, norm_strength=0.25).penalty(model, 2)
    assert plain is not None
    assert with_norms is not None
    norms = [p.detach().double().norm() for p in model.adapters.parameters(2).values()]
    assert len(norms) == 2 * len(model.adapters.a_matrices(2))
    expected = 0.25 * sum(norm.item() for norm in norms)
    assert (with_norms - plain).item() == pytest.approx(expected, rel=1e-4)


def test_the_norm_term_reaches_a_and_b_of_the_current_task_alone_and_spares_the_first() -> None:
    method, model = OrthogonalLora(strength=1.0, norm_strength=1.0), learned(3)
    assert method.penalty(model, 0) is None
    model.requires_grad_(True)
    penalty = method.penalty(model, 2)
    assert penalty is not None
    penalty.backward()
    reached = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
    assert reached == {id(p) for p in model.adapters.parameters(2).values()}


def test_a_new_b_of_zeros_has_a_gradient_of_zero_and_not_nan() -> None:
    method, model = OrthogonalLora(strength=1.0, norm_strength=1.0), learned(1)
    model.grow(2)
    penalty = method.penalty(model, 1)
    assert penalty is not None
    penalty.backward()
    for name, parameter in model.adapters.parameters(1).items():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any() == name.endswith(".lora_A")


def test_the_gradient_reaches_the_a_matrices_of_the_current_task_alone() -> None:
    model = learned(3)
    model.requires_grad_(True)
    penalty = OrthogonalLora(strength=1.0).penalty(model, 2)
    assert penalty is not None
    penalty.backward()
    reached = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
    assert reached == {id(a) for a in model.adapters.a_matrices(2).values()}


def test_the_penalty_and_the_overlap_fall_when_optimised() -> None:
    method, model = OrthogonalLora(strength=1.0, form="squared"), learned(3)
    a_matrices = list(model.adapters.a_matrices(2).values())
    optimizer = torch.optim.Adam(a_matrices, lr=0.01)
    start, overlap = method.penalty(model, 2), method.overlap(model, 2)
    assert start is not None
    penalty = start
    for _ in range(100):
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        following = method.penalty(model, 2)
        assert following is not None
        penalty = following
    assert penalty < 0.01 * start
    assert method.overlap(model, 2) < 0.1 * overlap
    assert min(a.norm().item() for a in a_matrices) > 0.1


def test_overlap_tells_directions_and_not_sizes() -> None:
    method, model = OrthogonalLora(strength=1.0), learned(2)
    new, old = model.adapters.a_matrices(1), model.adapters.a_matrices(0)
    before = method.overlap(model, 1)
    assert 0 < before < 1
    with torch.no_grad():
        for a in new.values():
            a.mul_(1e-3)
    assert method.overlap(model, 1) == pytest.approx(before, rel=1e-5)
    with torch.no_grad():
        for layer, a in new.items():
            a.copy_(torch.tensor([[1.0, 1.0], [1.0, -2.0]]) @ old[layer])
    assert method.overlap(model, 1) == pytest.approx(1.0)
    with torch.no_grad():
        for layer, a in new.items():
            complement = torch.linalg.svd(old[layer]).Vh[-2:]
            a.copy_(7 * complement)
    assert method.overlap(model, 1) == pytest.approx(0.0, abs=1e-9)


def test_an_adapter_that_vanished_overlaps_with_nothing() -> None:
    method, model = OrthogonalLora(strength=1.0), learned(2)
    with torch.no_grad():
        for a in model.adapters.a_matrices(1).values():
            a.zero_()
    assert method.overlap(model, 1) == 0.0


class Calls(TorchFunctionMode):
    """Counts every call of a function of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", ["absolute", "squared"])
def test_the_python_work_of_a_step_does_not_grow_with_the_number_of_tasks(form: str) -> None:
    counts = []
    for tasks in (2, 4, 8):
        method = OrthogonalLora(
            strength=1.0, form="squared" if form == "squared" else "absolute", norm_strength=1.0
        )
        model = learned(tasks)
        method.penalty(model, tasks - 1)
        with Calls() as calls:
            method.penalty(model, tasks - 1)
        counts.append(calls.count)
    assert counts[0] == counts[1] == counts[2] > 0


def test_the_report_tells_an_orthogonal_adapter_from_one_that_vanishes() -> None:
    method, model = OrthogonalLora(strength=1.0), learned(3)
    first, second, _ = before = method.report(model)["adapters"]
    assert [entry["task"] for entry in before] == [0, 1, 2]
    assert first["overlap"] is None
    assert second["overlap"] == method.overlap(model, 1)
    assert second["overlap_by_chance"] == pytest.approx(2 / 32)
    a = list(model.adapters.a_matrices(1).values())
    assert second["a_norm"] == pytest.approx(sum(m.norm().item() for m in a) / len(a))
    start = method.penalty(model, 1)
    with torch.no_grad():
        for matrix in a:
            matrix.mul_(1e-3)
    method.grow(model, 1)
    shrunk, after = method.penalty(model, 1), method.report(model)["adapters"][1]
    assert start is not None
    assert shrunk is not None
    assert shrunk < 0.01 * start
    assert after["overlap"] == pytest.approx(second["overlap"], rel=1e-5)
    assert after["a_norm"] == pytest.approx(1e-3 * second["a_norm"])
    assert after["b_norm"] == second["b_norm"]


def test_an_adapter_starts_with_the_norm_that_the_report_names() -> None:
    model = tiny_model(tasks=(2,), lora_r=16)
    (start,) = OrthogonalLora(strength=1.0).report(model)["adapters"]
    assert start["a_norm"] == pytest.approx((16 / 3) ** 0.5, rel=0.05)
    assert start["b_norm"] == 0.0


def test_what_it_cannot_reach_in_the_isolated_composition_is_said() -> None:
    method = OrthogonalLora(strength=1.0)
    isolated = tiny_model(tasks=(2, 2), composition="isolated")
    cumulative = tiny_model(tasks=(2, 2), composition="cumulative")
    (reason,) = method.no_effect_on(isolated).values()
    assert "composition: cumulative" in reason
    assert method.no_effect_on(cumulative) == {}
    stack = MethodStack([method])
    assert stack.notes(isolated) == [
        f"olora has no effect on predictions of earlier tasks: {reason}"
    ]
    assert stack.report(isolated)["olora"]["no_effect_on"] == method.no_effect_on(isolated)


def test_an_adapter_that_all_tasks_share_is_neither_new_nor_earlier() -> None:
    model, plain = tiny_model(shared="lora"), tiny_model()
    for each in (model, plain):
        for _ in range(2):
            each.grow(2)
    with torch.no_grad():
        for parameter in model.shared_parameters().values():
            parameter.fill_(3.0)
    method = OrthogonalLora(strength=0.5)
    penalty, expected = method.penalty(model, 1), OrthogonalLora(strength=0.5).penalty(plain, 1)
    assert penalty is not None
    assert expected is not None
    torch.testing.assert_close(penalty, expected, rtol=0, atol=0)
    learning = model.trainable()
    for parameter in learning.values():
        parameter.grad = None
    penalty.backward()
    reached = {name for name, parameter in learning.items() if parameter.grad is not None}
    assert {name.split(".")[0] for name in reached} == {"adapter-1"}
