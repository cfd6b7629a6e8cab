from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders import learn_something, tiny_model, token_task
from methods.conformance import begin, copied, silent
from plora_cl.data.sampling import stratified_rows
from plora_cl.errors import IncompatibleCheckpointError, MethodError
from plora_cl.methods.ewc import Ewc
from plora_cl.methods.fisher import diagonal_fisher
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import derived_seed


def learn(method: Ewc, folder: Path, tasks: int) -> ContinualClassifier:
    model = tiny_model(shared="layernorm")
    for task in range(tasks):
        begin(method, model, folder, task)
        learn_something(model)
        method.finish_task(model, token_task(folder, task), silent)
    model.grow(2)
    return model


def closed_form(method: Ewc, model: ContinualClassifier, strength: float) -> tuple[Tensor, Tensor]:
    """Return the penalty and its gradient in float64, from what the method remembers."""
    value, gradient = torch.zeros((), dtype=torch.float64), []
    for name, parameter in model.shared_parameters().items():
        theta, slope = (
            parameter.detach().double(),
            torch.zeros(parameter.shape, dtype=torch.float64),
        )
        for group in method.memory().values():
            fisher = group[f"fisher.{name}"].double()
            distance = theta - group[f"anchor.{name}"].double()
            value += strength / 2 * (fisher * distance.square()).sum()
            slope += strength * fisher * distance
        gradient.append(slope.flatten())
    return value, torch.cat(gradient)


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("tasks", [1, 3])
def test_penalty_and_gradient_are_those_of_the_formula(
    mode: str, tasks: int, tmp_path: Path
) -> None:
    method = Ewc(strength=30.0, mode="offline" if mode == "offline" else "online", examples=4)
    model = learn(method, tmp_path, tasks)
    learn_something(model)
    penalty = method.penalty(model, tasks)
    assert penalty is not None
    found = torch.autograd.grad(penalty, list(model.shared_parameters().values()))
    value, gradient = closed_form(method, model, 30.0)
    assert value > 0
    torch.testing.assert_close(penalty.double(), value, rtol=1e-5, atol=0)
    largest = float(gradient.abs().max())
    torch.testing.assert_close(
        torch.cat([g.flatten() for g in found]).double(), gradient, rtol=1e-4, atol=1e-5 * largest
    )


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_at_the_anchor_of_the_only_task_the_penalty_is_exactly_zero(
    mode: str, tmp_path: Path
) -> None:
    method = Ewc(strength=1e6, mode="offline" if mode == "offline" else "online", examples=4)
    model = learn(method, tmp_path, 1)
    penalty = method.penalty(model, 1)
    assert penalty is not None
    assert penalty.item() == 0.0
    gradients = torch.autograd.grad(penalty, list(model.shared_parameters().values()))
    assert all(not gradient.any() for gradient in gradients)


def test_offline_keeps_a_group_for_each_task_and_never_touches_it_again(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, mode="offline", examples=4)
    model = learn(method, tmp_path, 2)
    before, kept = copied(method.memory()), dict(method.memory())
    learn_something(model)
    method.finish_task(model, token_task(tmp_path, 2), silent)
    assert list(method.memory()) == ["task-0", "task-1", "task-2"]
    for name, group in before.items():
        assert method.memory()[name] is kept[name]
        assert all(torch.equal(group[n], kept[name][n]) for n in group)


def test_online_keeps_a_decayed_sum_and_the_latest_weights(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, mode="online", gamma=0.25, examples=4)
    only_new = Ewc(strength=1.0, mode="online", gamma=0.25, examples=4)
    model = learn(method, tmp_path, 1)
    first = copied(method.memory())["running"]
    learn_something(model)
    for m in (method, only_new):
        m.finish_task(model, token_task(tmp_path, 1), silent)
    assert list(method.memory()) == ["running"]
    second, new = method.memory()["running"], only_new.memory()["running"]
    for name, parameter in model.shared_parameters().items():
        fisher = 0.25 * first[f"fisher.{name}"] + new[f"fisher.{name}"]
        assert torch.equal(second[f"fisher.{name}"], fisher)
        assert torch.equal(second[f"anchor.{name}"], parameter)


@pytest.mark.parametrize(("examples", "used"), [(5, 5), (0, 12), (500, 12)])
def test_the_estimate_uses_the_stated_number_of_stratified_examples(
    examples: int, used: int, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    def note(what: str, done: int, total: int, /) -> None:
        told.append((what, done, total))

    method, model = Ewc(strength=1.0, examples=examples, seed=3), tiny_model(shared="layernorm")
    begin(method, model, tmp_path, 0)
    learn_something(model)
    task = token_task(tmp_path, 0, rows=12)
    method.finish_task(model, task, note)
    assert told == [("Fisher information of task 0", i + 1, used) for i in range(used)]
    rows = stratified_rows(task.train.labels, used, derived_seed(3, 0, 2))
    assert (
        np.bincount(task.train.labels[rows]).tolist() == sorted([used // 2, used - used // 2])[::-1]
    )
    expected = diagonal_fisher(
        model,
        task.train.subset(rows).in_order(100),
        estimator="empirical",
        progress=silent,
        total=used,
    )
    stored = method.memory()["running"]
    assert all(torch.equal(stored[f"fisher.{name}"], value) for name, value in expected.items())


def test_nothing_shared_is_an_error_that_names_the_fix(tmp_path: Path) -> None:
    model = tiny_model(tasks=(2,), shared="none")
    with pytest.raises(MethodError, match=r"(?s)shared: layernorm.*--no-ewc"):
        Ewc(strength=1.0).check(model)


def test_a_strength_of_zero_is_an_error_that_names_the_fix() -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    with pytest.raises(MethodError, match=r"lambda_ewc is 0, .*--no-ewc"):
        Ewc(strength=0.0).check(model)


def test_memory_of_another_shared_set_is_refused(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, examples=4)
    learn(method, tmp_path, 1)
    other, model = Ewc(strength=1.0), tiny_model(tasks=(2, 2), shared="embeddings")
    other.load_memory(method.memory())
    with pytest.raises(IncompatibleCheckpointError, match="`shared` setting"):
        other.penalty(model, 1)


def test_loading_keeps_tasks_in_order_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, mode="offline", examples=2)
    learn(method, tmp_path, 1)
    (group,) = method.memory().values()
    names = [f"task-{task}" for task in range(12)]
    other = Ewc(strength=1.0, mode="offline")
    other.load_memory(dict.fromkeys(sorted(names), group))
    assert list(other.memory()) == names


def test_the_cost_of_a_step_does_not_grow_with_the_number_of_tasks(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, mode="offline", examples=2)
    model = learn(method, tmp_path, 1)
    (group,) = method.memory().values()
    operations = []
    for tasks in (1, 20):
        method.load_memory({f"task-{task}": group for task in range(tasks)})
        method.penalty(model, tasks)
        with torch.profiler.profile() as profile:
            method.penalty(model, tasks)
        operations.append(len(profile.events()))
    assert operations[0] == operations[1] > 0
