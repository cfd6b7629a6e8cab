from __future__ import annotations

import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from plora_cl.evaluation.gaussians import TaskModel, TaskStatistics, shrunk_covariance

HIDDEN = 12


def some_task(
    task: int, *, rows: int = 60, classes: int = 3, apart: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return features around one centre a class, and their classes."""
    generator = torch.Generator().manual_seed(task)
    labels = torch.arange(rows) % classes
    centres = apart * torch.randn(classes, HIDDEN, generator=generator)
    mixing = torch.randn(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(rows, HIDDEN, generator=generator) @ mixing
    return centres[labels] + noise / HIDDEN, labels


def of(features: Tensor, labels: Tensor) -> TaskStatistics:
    return TaskStatistics.of(features, labels, classes=int(labels.max()) + 1)


def fitted(labels: Tensor) -> Tensor:
    """Return which rows are in the sums: all but every fifth of a class."""
    seen: dict[int, int] = {}
    rows = []
    for label in labels.tolist():
        seen[label] = seen.get(label, 0) + 1
        rows.append(seen[label] % 5 != 0)
    return torch.tensor(rows)


def centred(features: Tensor, labels: Tensor) -> Tensor:
    rows = fitted(labels)
    x, of_row = features[rows].double(), labels[rows]
    return torch.cat([x[of_row == c] - x[of_row == c].mean(0) for c in of_row.unique()])


def test_separable_tasks_are_recovered() -> None:
    tasks = [some_task(task, apart=8.0) for task in range(4)]
    model = TaskModel([of(*task) for task in tasks])
    for task, (features, _) in enumerate(tasks):
        chosen, _ = model.route(features, 0.0)
        assert chosen.tolist() == [task] * len(features)


def test_a_task_is_recovered_by_directions_that_vary_little() -> None:
    """Euclidean distance would follow the noise; the covariance tells which differences count."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([50.0, *[0.1] * (HIDDEN - 1)])
    shift = torch.tensor([0.0, *[1.0] * (HIDDEN - 1)])
    features = [torch.randn(400, HIDDEN, generator=generator) * scale + t * shift for t in (0, 1)]
    labels = torch.zeros(400, dtype=torch.int64)
    model = TaskModel([of(x, labels) for x in features])
    right = [(model.route(x, 0.0)[0] == task).double().mean() for task, x in enumerate(features)]
    assert min(right) > 0.9


def test_one_task_gets_everything() -> None:
    features, labels = some_task(0)
    chosen, _ = TaskModel([of(features, labels)]).route(some_task(7)[0], 0.05)
    assert chosen.tolist() == [0] * 60


def test_sums_of_tasks_one_after_the_other_are_those_of_all_at_once() -> None:
    """Not to the bit: a product of matrices over all rows adds in another order."""
    tasks = [some_task(task) for task in range(3)]
    parts = [of(*task) for task in tasks]
    everything = of(
        torch.cat([x for x, _ in tasks]), torch.cat([y + 3 * k for k, (_, y) in enumerate(tasks)])
    )
    torch.testing.assert_close(torch.cat([p.means for p in parts]), everything.means)
    assert torch.equal(torch.cat([p.counts for p in parts]), everything.counts)
    assert torch.equal(torch.cat([p.calibration for p in parts]), everything.calibration)
    together, shrinkage = shrunk_covariance([everything])
    covariance, same = shrunk_covariance(parts)
    torch.testing.assert_close(covariance, together, rtol=1e-12, atol=1e-14)
    assert same == pytest.approx(shrinkage, rel=1e-12)


def test_a_task_that_comes_later_leaves_the_sums_of_the_earlier_ones_alone() -> None:
    first = of(*some_task(0))
    before = {name: tensor.clone() for name, tensor in first.group().items()}
    TaskModel([first, of(*some_task(1))]).route(some_task(1)[0], 0.05)
    assert all(torch.equal(before[name], tensor) for name, tensor in first.group().items())
    again = TaskStatistics.from_group(before)
    one, other = (TaskModel([s, of(*some_task(1))]).scores(some_task(2)[0]) for s in (first, again))
    assert torch.equal(one, other)


@pytest.mark.parametrize("rows", [9, 30, 600])
def test_covariance_and_shrinkage_are_those_of_scikit_learn(rows: int) -> None:
    tasks = [some_task(task, rows=rows) for task in range(2)]
    expected, expected_shrinkage = ledoit_wolf(
        torch.cat([centred(*task) for task in tasks]).numpy(), assume_centered=True
    )
    covariance, shrinkage = shrunk_covariance([of(*task) for task in tasks])
    assert 0 < shrinkage < 1
    assert shrinkage == pytest.approx(expected_shrinkage, rel=1e-10)
    torch.testing.assert_close(covariance, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_the_score_is_the_density_of_a_mixture_up_to_what_all_share() -> None:
    tasks = [some_task(task, rows=31, classes=task + 2) for task in range(3)]
    statistics = [of(*task) for task in tasks]
    covariance, _ = shrunk_covariance(statistics)
    x = some_task(5)[0].double()
    densities = []
    for known in statistics:
        share = (known.counts / known.counts.sum()).log()
        normals = [torch.distributions.MultivariateNormal(m, covariance) for m in known.means]
        of_classes = torch.stack([normal.log_prob(x) for normal in normals], 1)
        densities.append((of_classes + share).logsumexp(1))
    difference = torch.stack(densities, 1) - TaskModel(statistics).scores(x)
    torch.testing.assert_close(difference, difference[0, 0].expand_as(difference))


def test_about_the_asked_share_of_new_texts_is_doubtful_however_many_dimensions() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3000, 100, generator=generator)
    labels = torch.zeros(500, dtype=torch.int64)
    model = TaskModel([of(rows[:500], labels), of(rows[500:1000] + 20, labels)])
    for task, new in enumerate((rows[1000:2000], rows[2000:] + 20)):
        chosen, doubtful = model.route(new, 0.1)
        assert (chosen == task).all()
        assert 0.03 < doubtful.double().mean() < 0.2
    assert model.route(rows[:500] + 300, 0.1)[1].all()
    assert not model.route(rows[:500] + 300, 0.0)[1].any()


def test_classes_without_examples_and_tasks_of_a_few_texts_are_no_trouble() -> None:
    features, labels = some_task(0, rows=2, classes=2)
    alone = TaskStatistics.of(features, labels, classes=4)
    model = TaskModel([alone, TaskStatistics.of(features + 3, labels, classes=2)])
    chosen, doubtful = model.route(features, 0.5)
    assert chosen.tolist() == [0, 0]
    assert not doubtful.any()
    assert torch.isfinite(model.scores(features)).all()
