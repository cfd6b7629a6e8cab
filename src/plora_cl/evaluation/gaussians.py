"""Which task a text belongs to: one Gaussian per class over frozen features, one covariance.

Linear discriminant analysis (Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning",
2nd edition, section 4.3) from sums that add up over tasks, so that no earlier text is needed;
on a frozen encoder, compare Hayes and Kanan 2020 (arXiv 1909.01520). All in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

_ROWS = 4096
_HELD_OUT = 5  # one in so many


class TaskStatistics(NamedTuple):
    """What one task adds to the model, sufficient for means, covariance and shrinkage.

    Attributes:
        counts: Examples of each class, ``[classes]``.
        means: Mean of each class, ``[classes, hidden]``; 0 where there is no example.
        scatter: ``sum (x - mean)(x - mean)^T`` around the mean of the class, ``[hidden, hidden]``.
        fourth: ``sum |x - mean|^4``, a scalar.
        calibration: Training features that are in none of the sums, ``[held out, hidden]``,
            float32: what scores of this task's texts look like depends on the covariance, which
            later tasks change, and those of texts that were fitted to are too good.
    """

    counts: Tensor
    means: Tensor
    scatter: Tensor
    fourth: Tensor
    calibration: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, *, classes: int) -> Self:
        """Summarise the features of one task; every fifth of a class is for calibration only.

        Args:
            features: ``[examples, hidden]``.
            labels: ``[examples]``, int64.
            classes: Number of classes of the task.
        """
        members = torch.nn.functional.one_hot(labels, classes)
        number_in_class = members.cumsum(0)[torch.arange(len(labels)), labels]
        held_out = number_in_class % _HELD_OUT == 0
        x, labels, members = (t[~held_out] for t in (features.double(), labels, members))
        counts = members.sum(0).double()
        means = members.double().T @ x / counts.clamp(min=1).unsqueeze(1)
        centred = x - means[labels]
        return cls(
            counts=counts,
            means=means,
            scatter=centred.T @ centred,
            fourth=centred.square().sum(1).square().sum(),
            calibration=features[held_out].float(),
        )

    @classmethod
    def from_group(cls, group: Mapping[str, Tensor]) -> Self:
        """Return what `group` was made of."""
        return cls(**{name: group[name].cpu() for name in cls._fields})

    def group(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return self._asdict()


class TaskModel:
    """Scores texts by task, from the statistics of every task so far.

    The score of task ``k`` is ``log sum_c p(c|k) exp(-d_c(x)^2 / 2)`` with ``p(c|k)`` the share of
    class ``c`` among the task's examples and ``d_c`` the Mahalanobis distance to its mean. Tasks
    are equally likely beforehand, whatever their numbers of examples; what all scores have in
    common is left out.

    Args:
        tasks: Statistics in task order, at least one.
    """

    def __init__(self, tasks: Sequence[TaskStatistics]) -> None:
        self._classes = [len(task.counts) for task in tasks]
        covariance, self.shrinkage = shrunk_covariance(tasks)
        self._factor = torch.linalg.cholesky(covariance)
        self._means = self._whitened(torch.cat([task.means for task in tasks]))
        self._log_share = torch.cat([(task.counts / task.counts.sum()).log() for task in tasks])
        self._calibration = [task.calibration for task in tasks]

    def scores(self, features: Tensor) -> Tensor:
        """Return ``[examples, tasks]`` for features ``[examples, hidden]``."""
        blocks = [self._block(block) for block in features.split(_ROWS)]
        return torch.cat(blocks)

    def thresholds(self, quantile: float) -> Tensor:
        """Return the ``quantile`` of each task's scores on its held-out features, ``[tasks]``.

        Minus infinity for a quantile of 0, and for a task that was too small to hold any out.
        """
        found = torch.full((len(self._classes),), -torch.inf, dtype=torch.float64)
        for task, features in enumerate(self._calibration):
            if quantile > 0 and len(features):
                found[task] = self.scores(features)[:, task].quantile(quantile)
        return found

    def route(self, features: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
        """Return the best task of each text, and whether its score is below the threshold.

        Args:
            features: ``[examples, hidden]``.
            quantile: See `thresholds`.
        """
        best, task = self.scores(features).max(1)
        return task, best < self.thresholds(quantile)[task]

    def _block(self, features: Tensor) -> Tensor:
        whitened = self._whitened(features.double())
        distance = torch.cdist(whitened, self._means, compute_mode="donot_use_mm_for_euclid_dist")
        per_class = self._log_share - distance.square() / 2
        return torch.stack([c.logsumexp(1) for c in per_class.split(self._classes, 1)], 1)

    def _whitened(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self._factor, x.T, upper=False).T


def shrunk_covariance(tasks: Sequence[TaskStatistics]) -> tuple[Tensor, float]:
    """Return the covariance within classes over all tasks ``[hidden, hidden]``, and its shrinkage.

    ``(1 - a) S + a tr(S)/p I`` with ``S`` the pooled scatter over the number of examples and ``a``
    of Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", section 3.3; as `sklearn.covariance.ledoit_wolf` computes it of the centred
    features, but from sums: ``sum_n |x_n x_n^T - S|^2 = sum_n |x_n|^4 - n |S|^2``.
    """
    examples = float(sum(task.counts.sum() for task in tasks))
    s = torch.stack([task.scatter for task in tasks]).sum(0) / examples
    fourth = float(sum(task.fourth for task in tasks))
    hidden = len(s)
    mu = float(s.trace()) / hidden
    if mu == 0:  # one example a class at most: every direction is as good as any other
        return torch.eye(hidden, dtype=s.dtype), 1.0
    squared = float(s.square().sum())
    spread = max(squared - hidden * mu**2, 0.0)
    noise = min(max(fourth / examples - squared, 0.0) / examples, spread)
    shrinkage = noise / spread if noise else 0.0
    floor = max(shrinkage, 1e-10)  # a scatter without full rank stays solvable
    return (1 - floor) * s + floor * mu * torch.eye(hidden, dtype=s.dtype), shrinkage
