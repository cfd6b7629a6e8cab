from __future__ import annotations

import pytest
import torch

from encoders import learn_something, tiny_model
from plora_cl.errors import MethodError
from plora_cl.methods.olora import OrthogonalLora
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


def test_a_strength_of_zero_is_an_error_that_names_the_fix() -> None:
    with pytest.raises(MethodError, match=r"lambda_ortho is 0, .*--no-orthogonal"):
        OrthogonalLora(strength=0.0).check(learned(1))


def test_the_cost_of_a_step_does_not_grow_with_the_number_of_tasks() -> None:
    operations = []
    for tasks in (2, 6):
        method, model = OrthogonalLora(strength=1.0), learned(tasks)
        method.penalty(model, tasks - 1)
        with torch.profiler.profile() as profile:
            method.penalty(model, tasks - 1)
        operations.append(len(profile.events()))
    assert operations[0] == operations[1] > 0
