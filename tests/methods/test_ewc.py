from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders import learn_something, tiny_model, token_task
from methods.conformance import begin, copied
from plora_cl.data.sampling import stratified_rows
from plora_cl.data.task import Task
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.methods.ewc.fisher import FisherSums, diagonal_fisher
from plora_cl.methods.ewc.penalty import Ewc
from plora_cl.methods.ewc.scale import fisher_scale, with_laplace_lambdas
from plora_cl.methods.ewc.settings import Estimator
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import StateDict, derived_seed
from plora_cl.units import run_through


def learn(method: Ewc, folder: Path, tasks: int) -> ContinualClassifier:
    model = tiny_model(shared="layernorm")
    for task in range(tasks):
        begin(method, model, folder, task)
        learn_something(model)
        list(method.finish_task(model, token_task(folder, task)))
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


def mean_square_of_gradients(model: ContinualClassifier, task: Task) -> dict[str, Tensor]:
    """Return the empirical Fisher information over a whole task, by backward passes alone."""
    total = {name: torch.zeros_like(p) for name, p in model.shared_parameters().items()}
    for batch in task.train.in_order(1):
        model.zero_grad()
        logits = model(batch.input_ids, batch.attention_mask, task.index)
        torch.nn.functional.cross_entropy(logits, batch.labels).backward()
        for name, parameter in model.shared_parameters().items():
            assert parameter.grad is not None
            total[name] += parameter.grad**2 / len(task.train)
    model.zero_grad()
    return total


@pytest.mark.parametrize(
    ("mode", "gamma"), [("offline", 0.7), ("online", 0.7), ("online", 0.25), ("online", 1.0)]
)
def test_in_float64_the_penalty_is_the_formula_over_a_whole_stream(
    mode: str, gamma: float, tmp_path: Path
) -> None:
    strength, online = 30.0, mode == "online"
    method = Ewc(
        strength=strength,
        mode="online" if online else "offline",
        examples=0,
        gamma=gamma,
    )
    model = tiny_model(shared="layernorm").eval()
    learned: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for index in range(4):
        begin(method, model, tmp_path, index)
        model.double()
        learn_something(model)
        # While each task is learned, so that nothing of the one before may linger
        terms = [
            (gamma ** (index - k), fisher, learned[-1][1]) if online else (1.0, fisher, weights)
            for k, (fisher, weights) in enumerate(learned)
        ]
        assert_penalty(method, model, terms, strength)
        task = token_task(tmp_path, index)
        weights = {n: p.detach().clone() for n, p in model.shared_parameters().items()}
        learned.append((mean_square_of_gradients(model, task), weights))
        list(method.finish_task(model, task))


def assert_penalty(
    method: Ewc,
    model: ContinualClassifier,
    terms: list[tuple[float, dict[str, Tensor], dict[str, Tensor]]],
    strength: float,
) -> None:
    """Compare with the formula over weights, Fisher information and anchors.

    Online: the norm of the penalty is that of gamma F*_{i-1}, with F*_i = gamma F*_{i-1} + F_i
    (Schwarz et al. 2018, section 4). Unrolled, F_k weighs gamma^(i-k) while task i is learned.
    """
    penalty = method.penalty(model, model.tasks - 1)
    if not terms:
        assert penalty is None
        return
    expected = torch.zeros((), dtype=torch.float64)
    for weight, fisher, anchor in terms:
        for name, parameter in model.shared_parameters().items():
            distance = parameter - anchor[name]
            expected = expected + weight * (fisher[name] * distance**2).sum()
    expected = strength / 2 * expected
    assert penalty is not None
    assert penalty > 0
    torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=0)
    shared = list(model.shared_parameters().values())
    for one, other in zip(
        torch.autograd.grad(penalty, shared), torch.autograd.grad(expected, shared), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_scale_of_each_fisher_is_reported_and_survives(tmp_path: Path) -> None:
    method = Ewc(strength=7.0, mode="offline", examples=4)
    model = learn(method, tmp_path, 2)
    report = method.report(model)
    assert report["lambda_ewc"] == 7.0
    assert [scale["name"] for scale in report["fisher"]] == ["task 0", "task 1"]
    for scale, group in zip(report["fisher"], method.memory().values(), strict=True):
        fisher = torch.cat([f.flatten() for n, f in group.items() if n.startswith("fisher.")])
        fisher = fisher.double()
        assert scale["parameters"] == fisher.numel()
        assert scale["trace"] == pytest.approx(fisher.sum().item())
        assert scale["max"] == fisher.max().item()
        assert scale["p90"] == pytest.approx(fisher.quantile(0.9).item())
        assert scale["p99"] == pytest.approx(fisher.quantile(0.99).item())
        assert scale["share_of_zeros"] == (fisher == 0).double().mean().item()
        unit = scale["lambda_for_unit_curvature"] * fisher.mean().item()
        assert unit == pytest.approx(1.0)
        assert (scale["examples"], scale["train_examples"]) == (4, 12)
    assert [scale["lambda_laplace"] for scale in report["fisher"]] == [1.0, None]
    other = Ewc(strength=7.0, mode="offline", examples=4)
    other.load_state_dict(method.state_dict())
    assert other.report(model) == report


def test_the_scale_of_a_task_is_its_own_and_not_that_of_the_running_sum(tmp_path: Path) -> None:
    scales = []
    for mode in ("offline", "online"):
        method = Ewc(strength=1.0, mode="offline" if mode == "offline" else "online", examples=4)
        model = learn(method, tmp_path, 2)
        scales.append(method.report(model)["fisher"])
    assert scales[0] == scales[1]


def test_a_state_from_before_scales_were_kept_is_read(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, examples=4)
    model = learn(method, tmp_path, 1)
    method.load_state_dict({})
    assert method.report(model)["fisher"] == []


def test_lambda_of_laplace_weighs_examples_of_the_old_task_against_those_of_the_new() -> None:
    def scale(task: int, train_examples: int, estimator: str) -> StateDict:
        return {"task": task, "train_examples": train_examples, "estimator": estimator}

    scales = [scale(0, 300, "exact"), scale(1, 100, "batched"), scale(2, 400, "exact")]
    assert [s["lambda_laplace"] for s in with_laplace_lambdas(scales)] == [3.0, None, None]


def test_a_fisher_of_zeros_is_marked_and_no_lambda_is_made_up_for_it() -> None:
    scale = fisher_scale({"a": torch.zeros(3), "b": torch.zeros(2, 2)})
    assert scale["lambda_for_unit_curvature"] is None
    assert (scale["share_of_zeros"], scale["parameters"]) == (1.0, 7)
    method, model = Ewc(strength=1.0), tiny_model(tasks=(2,), shared="layernorm")
    state = {"task": 0, "name": "news", "estimator": "exact", "train_examples": 3, **scale}
    assert not method.no_effect_on(model)
    method.load_state_dict({"scales": [state]})
    assert method.no_effect_on(model).keys() == {"news"}


@pytest.mark.parametrize("estimator", ["sampled", "batched"])
def test_labels_and_mini_batches_are_drawn_anew_for_each_seed(
    estimator: Estimator, tmp_path: Path
) -> None:
    found = []
    for seed in (1, 1, 2):
        method = Ewc(strength=1.0, estimator=estimator, examples=0, batch_size=3, seed=seed)
        found.append(method.report(learn(method, tmp_path, 1))["fisher"][0]["trace"])
    assert found[0] == found[1] != found[2]


def test_mini_batches_do_not_follow_the_order_of_lengths(tmp_path: Path) -> None:
    method = Ewc(strength=1.0, estimator="batched", examples=0, batch_size=3)
    model = learn(method, tmp_path, 1)
    by_length = run_through(
        diagonal_fisher(
            model,
            token_task(tmp_path, 0).train.in_order(1),
            FisherSums("batched", batch_size=3),
            total=12,
        )
    )
    found = method.memory()["running"]
    assert not all(torch.allclose(found[f"fisher.{n}"], f) for n, f in by_length.items())


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
    list(method.finish_task(model, token_task(tmp_path, 2)))
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
        list(m.finish_task(model, token_task(tmp_path, 1)))
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
    method, model = Ewc(strength=1.0, examples=examples, seed=3), tiny_model(shared="layernorm")
    begin(method, model, tmp_path, 0)
    learn_something(model)
    task = token_task(tmp_path, 0, rows=12)
    told = list(method.finish_task(model, task))
    assert told == [("Fisher information of task 0", i + 1, used) for i in range(used)]
    rows = stratified_rows(task.train.labels, used, derived_seed(3, 0, 2))
    assert (
        np.bincount(task.train.labels[rows]).tolist() == sorted([used // 2, used - used // 2])[::-1]
    )
    expected = run_through(
        diagonal_fisher(
            model, task.train.subset(rows).in_order(100), FisherSums("empirical"), total=used
        )
    )
    stored = method.memory()["running"]
    assert all(torch.equal(stored[f"fisher.{name}"], value) for name, value in expected.items())


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
