"""Which task a text belongs to: one Gaussian per task over frozen features, one covariance.

Linear discriminant analysis (Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning",
2nd edition, section 4.3) from sums that add up over tasks, so that no earlier text is needed;
on a frozen encoder, compare Hayes and Kanan 2020 (arXiv 1909.01520). The classes are tasks here,
and layers count as independent of one another. All in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from plora_cl.errors import IncompatibleCheckpointError

_ROWS = 4096
_HELD_OUT = 5  # one in so many


class TaskStatistics(NamedTuple):
    """What one task adds to the model, sufficient for means, covariance and shrinkage.

    Attributes:
        examples: Examples in the sums, a scalar.
        mean: Their mean, ``[layers, hidden]``.
        scatter: ``sum (x - mean)(x - mean)^T`` of each layer, rows of the lower triangle one after
            the other: ``[layers, hidden (hidden + 1) / 2]``.
        fourth: ``sum |x - mean|^4`` of each layer, ``[layers]``.
        calibration: Training features that are in none of the sums, ``[held out, layers,
            hidden]``, float32: what scores of this task's texts look like depends on the
            covariance, which later tasks change, and those of texts that were fitted to are too
            good.
    """

    examples: Tensor
    mean: Tensor
    scatter: Tensor
    fourth: Tensor
    calibration: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Summarise the features of one task; every fifth is for calibration only.

        Args:
            features: ``[examples, layers, hidden]``, at least one example.
        """
        held_out = torch.arange(1, len(features) + 1) % _HELD_OUT == 0
        x = features[~held_out].double()
        mean = x.mean(0)
        by_layer = (x - mean).transpose(0, 1)
        rows, columns = torch.tril_indices(x.shape[2], x.shape[2])
        return cls(
            examples=torch.tensor(len(x), dtype=torch.float64),
            mean=mean,
            scatter=(by_layer.mT @ by_layer)[:, rows, columns],
            fourth=by_layer.square().sum(2).square().sum(1),
            calibration=features[held_out].float(),
        )

    @classmethod
    def from_group(cls, group: Mapping[str, Tensor]) -> Self:
        """Return what `group` was made of.

        Raises:
            IncompatibleCheckpointError: The group holds other statistics than these.
        """
        if set(group) != set(cls._fields):
            raise IncompatibleCheckpointError(
                f"the router's statistics in the checkpoint are {sorted(group)}, those of this "
                f"version are {sorted(cls._fields)}; resume with the version that saved it, or "
                "without the router (use_router: false / --no-router)"
            )
        return cls(**{name: group[name].cpu() for name in cls._fields})

    def group(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return self._asdict()


class TaskModel:
    """Scores texts by task, from the statistics of every task so far.

    The score of task ``k`` is ``-sum_l d_kl(x_l)^2 / 2`` with ``d_kl`` the Mahalanobis distance to
    the task's mean in layer ``l``: its log density up to a constant that all tasks share. The prior
    is uniform over tasks, independent of their numbers of examples.

    Args:
        tasks: Statistics in task order, at least one.
    """

    def __init__(self, tasks: Sequence[TaskStatistics]) -> None:
        self._factors = torch.linalg.cholesky(shrunk_covariance(tasks))
        self._means = self._whitened(torch.stack([task.mean for task in tasks]))
        self._calibration = [task.calibration for task in tasks]
        self._known_thresholds: dict[float, tuple[Tensor, Tensor]] = {}

    def scores(self, features: Tensor) -> Tensor:
        """Return ``[examples, tasks]`` for features ``[examples, layers, hidden]``."""
        blocks = [self._block(block) for block in features.split(_ROWS)]
        return torch.cat(blocks)

    def route(self, features: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
        """Return the best task of each text, and whether the choice is doubtful.

        It is doubtful if another task comes close, or if the text is like none of them: if its
        lead over the second best task is among the lowest held-out ones of all tasks, or its score
        among the lowest held-out ones of the chosen task. Each is asked for half the quantile, so
        both together doubt about that share of texts like the held-out ones.

        Source: Chow 1970, "On optimum recognition error and reject tradeoff", for the lead.

        Args:
            features: ``[examples, layers, hidden]``.
            quantile: In [0, 1); 0 never doubts.
        """
        scores = self.scores(features)
        best, task = scores.max(1)
        if quantile not in self._known_thresholds:
            self._known_thresholds[quantile] = self._thresholds(quantile / 2)
        lowest_scores, lowest_lead = self._known_thresholds[quantile]
        return task, (_lead(scores) < lowest_lead) | (best < lowest_scores[task])

    def _thresholds(self, quantile: float) -> tuple[Tensor, Tensor]:
        """Return the quantile of held-out scores by task, ``[tasks]``, and of held-out leads.

        Minus infinity where nothing was held out, or where there is no second task.
        """
        known = len(self._calibration)
        lowest = torch.full((known + 1,), -torch.inf, dtype=torch.float64)
        if quantile == 0:
            return lowest[:known], lowest[known]
        held_out = {task: x for task, x in enumerate(self._calibration) if len(x)}
        scores = {task: self.scores(x) for task, x in held_out.items()}
        for task, of_task in scores.items():
            lowest[task] = of_task[:, task].quantile(quantile)
        if scores and known > 1:
            lowest[known] = _lead(torch.cat([*scores.values()])).quantile(quantile)
        return lowest[:known], lowest[known]

    def _block(self, features: Tensor) -> Tensor:
        x = self._whitened(features.double())
        distance = torch.cdist(x, self._means, compute_mode="donot_use_mm_for_euclid_dist")
        return -distance.square() / 2

    def _whitened(self, x: Tensor) -> Tensor:
        """Return ``[examples, layers * hidden]``: each layer without its covariance."""
        by_layer = torch.linalg.solve_triangular(self._factors, x.permute(1, 2, 0), upper=False)
        return by_layer.permute(2, 0, 1).flatten(1)


def _lead(scores: Tensor) -> Tensor:
    """Return by how much the best task beats the second best, ``[examples]``; infinite alone."""
    if scores.shape[1] == 1:
        return torch.full((len(scores),), torch.inf, dtype=scores.dtype)
    best = scores.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def shrunk_covariance(tasks: Sequence[TaskStatistics]) -> Tensor:
    """Return the covariance within tasks by layer, shrunk: ``[layers, hidden, hidden]``.

    ``(1 - a) S + a tr(S)/p I`` with ``S`` the pooled scatter over the number of examples and ``a``
    of Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional
    covariance matrices", section 3.3; as `sklearn.covariance.ledoit_wolf` computes it of the
    centred features, but from sums: ``sum_n |x_n x_n^T - S|^2 = sum_n |x_n|^4 - n |S|^2``.
    """
    examples = float(sum(task.examples for task in tasks))
    scatters = torch.stack([task.scatter for task in tasks]).sum(0) / examples
    fourths = torch.stack([task.fourth for task in tasks]).sum(0) / examples
    layers, hidden = tasks[0].mean.shape
    rows, columns = torch.tril_indices(hidden, hidden)
    s = torch.zeros(layers, hidden, hidden, dtype=torch.float64)
    s[:, rows, columns] = s[:, columns, rows] = scatters
    layers_of = zip(s, fourths.tolist(), strict=True)
    return torch.stack([_shrunk(of_layer, fourth, examples) for of_layer, fourth in layers_of])


def _shrunk(s: Tensor, fourth: float, examples: float) -> Tensor:
    hidden = len(s)
    mu = float(s.trace()) / hidden
    identity = torch.eye(hidden, dtype=s.dtype)
    if mu == 0:  # one example a task at most: every direction is as good as any other
        return identity
    squared = float(s.square().sum())
    spread = max(squared - hidden * mu**2, 0.0)
    noise = min(max(fourth - squared, 0.0) / examples, spread)
    shrinkage = noise / spread if noise else 0.0
    shrinkage = max(shrinkage, 1e-10)  # a scatter without full rank stays solvable
    return (1 - shrinkage) * s + shrinkage * mu * identity
