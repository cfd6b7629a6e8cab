from __future__ import annotations

import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.evaluation.routing.task_lda import TaskModel, TaskStatistics, shrunk_covariance

LAYERS, HIDDEN = 2, 12


def some_task(task: int, *, rows: int = 60, apart: float = 1.0) -> Tensor:
    """Return features around one centre, correlated within a layer."""
    generator = torch.Generator().manual_seed(task)
    centre = apart * torch.randn(LAYERS, HIDDEN, generator=generator)
    mixing = torch.randn(LAYERS, HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(rows, LAYERS, HIDDEN, generator=generator)
    return centre + torch.einsum("nlh,lhk->nlk", noise, mixing) / HIDDEN


def fitted(features: Tensor) -> Tensor:
    """Return the rows that are in the sums, all but every fifth, in float64."""
    return torch.stack([row for n, row in enumerate(features, 1) if n % 5]).double()


def centred(features: Tensor) -> Tensor:
    x = fitted(features)
    return x - x.mean(0)


def test_separable_tasks_are_recovered() -> None:
    tasks = [some_task(task, apart=8.0) for task in range(4)]
    model = TaskModel([TaskStatistics.of(task) for task in tasks])
    for task, features in enumerate(tasks):
        chosen, _ = model.route(features, 0.0)
        assert chosen.tolist() == [task] * len(features)


def test_a_task_is_recovered_by_directions_that_vary_little() -> None:
    """Euclidean distance would follow the noise; the covariance tells which differences count."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([50.0, *[0.1] * (HIDDEN - 1)])
    shift = torch.tensor([0.0, *[1.0] * (HIDDEN - 1)])
    features = [
        torch.randn(400, 1, HIDDEN, generator=generator) * scale + t * shift for t in (0, 1)
    ]
    model = TaskModel([TaskStatistics.of(x) for x in features])
    right = [(model.route(x, 0.0)[0] == task).double().mean() for task, x in enumerate(features)]
    assert min(right) > 0.9


@pytest.mark.parametrize("layer", range(LAYERS))
def test_any_layer_can_tell_tasks_apart(layer: int) -> None:
    features = [some_task(0), some_task(0)]
    features[1][:, layer] += 5
    model = TaskModel([TaskStatistics.of(x) for x in features])
    for task, x in enumerate(features):
        assert model.route(x, 0.0)[0].tolist() == [task] * len(x)


def test_one_task_gets_everything() -> None:
    chosen, _ = TaskModel([TaskStatistics.of(some_task(0))]).route(some_task(7), 0.05)
    assert chosen.tolist() == [0] * 60


def test_statistics_are_sums_over_the_rows_that_are_not_held_out() -> None:
    features = some_task(3, rows=24)
    x, held_out = centred(features), [4, 9, 14, 19]
    found = TaskStatistics.of(features)
    assert found.examples == 20
    torch.testing.assert_close(found.mean, fitted(features).mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        found.fourth, x.square().sum(2).square().sum(0), rtol=1e-12, atol=1e-14
    )
    for layer in range(LAYERS):
        scatter = x[:, layer].T @ x[:, layer]
        lower = torch.cat([scatter[row, : row + 1] for row in range(HIDDEN)])
        torch.testing.assert_close(found.scatter[layer], lower, rtol=1e-12, atol=1e-14)
    assert torch.equal(found.calibration, features[held_out])


def test_the_order_in_which_tasks_are_learned_changes_no_score_but_in_rounding() -> None:
    statistics = [TaskStatistics.of(some_task(task, rows=20 + 15 * task)) for task in range(4)]
    order = [2, 0, 3, 1]
    forwards = TaskModel(statistics).scores(some_task(9))
    shuffled = TaskModel([statistics[k] for k in order]).scores(some_task(9))
    torch.testing.assert_close(shuffled, forwards[:, order], rtol=1e-10, atol=1e-10)


def test_a_task_that_comes_later_leaves_the_sums_of_the_earlier_ones_alone() -> None:
    first, second = (TaskStatistics.of(some_task(task)) for task in (0, 1))
    before = {name: tensor.clone() for name, tensor in first.group().items()}
    TaskModel([first, second]).route(some_task(1), 0.05)
    assert all(torch.equal(before[name], tensor) for name, tensor in first.group().items())
    again = TaskStatistics.from_group(before)
    one, other = (TaskModel([s, second]).scores(some_task(2)) for s in (first, again))
    assert torch.equal(one, other)


def test_statistics_of_another_version_are_refused_with_the_ways_out() -> None:
    group = TaskStatistics.of(some_task(0)).group()
    group["means"] = group.pop("mean")
    with pytest.raises(IncompatibleCheckpointError, match="--no-router"):
        TaskStatistics.from_group(group)


@pytest.mark.parametrize("rows", [9, 30, 600])
def test_covariance_and_shrinkage_are_those_of_scikit_learn(rows: int) -> None:
    tasks = [some_task(task, rows=rows) for task in range(2)]
    x = torch.cat([centred(task) for task in tasks])
    covariance = shrunk_covariance([TaskStatistics.of(task) for task in tasks])
    for layer in range(LAYERS):
        expected, expected_shrinkage = ledoit_wolf(x[:, layer].numpy(), assume_centered=True)
        scatter = float(x[:, layer, 0] @ x[:, layer, 1]) / len(x)
        shrinkage = 1 - float(covariance[layer, 0, 1]) / scatter
        assert 0 < shrinkage < 1
        assert shrinkage == pytest.approx(expected_shrinkage, rel=1e-10)
        torch.testing.assert_close(
            covariance[layer], torch.from_numpy(expected), rtol=1e-9, atol=1e-12
        )


def test_the_score_is_the_log_density_up_to_what_all_share() -> None:
    statistics = [TaskStatistics.of(some_task(task, rows=31 + 9 * task)) for task in range(3)]
    covariance = shrunk_covariance(statistics)
    x = some_task(5).double()
    densities = [
        sum(
            torch.distributions.MultivariateNormal(known.mean[k], covariance[k]).log_prob(x[:, k])
            for k in range(LAYERS)
        )
        for known in statistics
    ]
    difference = torch.stack(densities, 1) - TaskModel(statistics).scores(x)
    torch.testing.assert_close(difference, difference[0, 0].expand_as(difference))


def test_about_the_asked_share_of_new_texts_is_doubtful_however_many_dimensions() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3000, LAYERS, 100, generator=generator)
    model = TaskModel([TaskStatistics.of(rows[:500]), TaskStatistics.of(rows[500:1000] + 20)])
    for task, new in enumerate((rows[1000:2000], rows[2000:] + 20)):
        chosen, doubtful = model.route(new, 0.1)
        assert (chosen == task).all()
        assert 0.03 < doubtful.double().mean() < 0.2
    assert model.route(rows[:500] + 300, 0.1)[1].all()
    assert not model.route(rows[:500] + 300, 0.0)[1].any()


def test_a_text_between_two_tasks_is_doubtful_and_one_well_inside_is_not() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(1000, LAYERS, HIDDEN, generator=generator)
    shift = torch.zeros(LAYERS, HIDDEN)
    shift[0, 0] = 8.0
    model = TaskModel([TaskStatistics.of(rows[:500]), TaskStatistics.of(rows[500:] + shift)])
    between = shift * torch.tensor([0.49, 0.51]).view(2, 1, 1)
    chosen, doubtful = model.route(between, 0.1)
    assert chosen.tolist() == [0, 1]
    assert doubtful.all()
    assert not model.route(torch.stack([0 * shift, shift]), 0.1)[1].any()
    assert not model.route(between, 0.0)[1].any()


def test_tasks_of_a_few_texts_are_no_trouble() -> None:
    features = some_task(0, rows=2)
    for few in (1, 2):
        x = features[:few]
        model = TaskModel([TaskStatistics.of(x), TaskStatistics.of(x + 3)])
        chosen, doubtful = model.route(x, 0.5)
        assert chosen.tolist() == [0] * few
        assert not doubtful.any()
        assert torch.isfinite(model.scores(x)).all()
