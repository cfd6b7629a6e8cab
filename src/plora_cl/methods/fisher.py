"""Diagonal Fisher information of the shared parameters, per example or per mini-batch.

Sources: Kirkpatrick et al. 2017 (arXiv 1612.00796), eq. 3; on the estimators, van de Ven 2025, "On
the Computation of the Fisher Information in Continual Learning" (arXiv 2502.11756).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from plora_cl.data.batches import Batch
from plora_cl.methods.base import Progress
from plora_cl.model.classifier import ContinualClassifier

Estimator: TypeAlias = Literal["exact", "sampled", "empirical", "batched"]


def diagonal_fisher(
    model: ContinualClassifier,
    batches: Iterable[Batch],
    *,
    estimator: Estimator,
    progress: Progress,
    total: int,
    what: str = "Fisher information",
    seed: int | None = None,
    batch_size: int = 1,
) -> dict[str, Tensor]:
    """Estimate the diagonal Fisher information of every shared parameter, by its encoder name.

    With ``g_n(c) = d log p(c|x_n) / d theta``, the true label ``y_n`` and ``N`` examples:

    - ``exact``: ``1/N sum_n sum_c p(c|x_n) g_n(c)^2`` with the model's own probabilities, one
      backward pass for each class;
    - ``sampled``: ``1/N sum_n g_n(c_n)^2`` with one ``c_n`` drawn from ``p(.|x_n)``, an unbiased
      estimate of the exact one;
    - ``empirical``: ``1/N sum_n g_n(y_n)^2``;
    - ``batched``: ``1/M sum_m (1/B sum_{n in m} g_n(y_n))^2`` over ``M`` mini-batches of ``B``
      examples. Gradients cancel in the inner mean, so it is about ``B`` times smaller than
      ``empirical`` where they are independent with mean zero, and wants a lambda that much larger.

    Runs in evaluation mode and at least float32, one example at a time and without padding (the
    encoders cannot be vmapped), draws nothing from the global generators, and leaves the gradients
    and the mode of the model as they were.

    Args:
        model: What to differentiate.
        batches: Examples of any tasks that the model has heads for; padding has no influence.
        estimator: ``exact``, ``sampled``, ``empirical`` or ``batched``.
        progress: Told after each example.
        total: Number of examples in ``batches``.
        what: The name of this work, for ``progress``.
        seed: Draws the labels of ``sampled``, on the CPU wherever the model is.
        batch_size: ``B`` of ``batched``, at least 1: consecutive examples; the last mini-batch may
            be smaller.

    Raises:
        ValueError: ``batches`` does not hold ``total`` examples, or none; ``sampled`` has no seed.
    """
    if estimator == "sampled" and seed is None:
        raise ValueError("the sampled Fisher information needs a seed for the labels it draws")
    generator = torch.Generator().manual_seed(seed or 0)
    shared = model.shared_parameters()
    parameters = list(shared.values())
    batched = estimator == "batched"
    squares = _MeanOfSquaredMeans(parameters, batch_size) if batched else _MeanOfSquares(parameters)
    done = 0
    with _undisturbed(model):
        for ids, label, task in _one_by_one(batches):
            log_p = _log_probabilities(model, ids, task)
            for weight, c in _weighted_classes(log_p, label, estimator, generator):
                gradients = torch.autograd.grad(
                    log_p[c], parameters, retain_graph=True, materialize_grads=True
                )
                squares.add(gradients, weight)
            squares.example_done()
            done += 1
            progress(what, done, total)
    if done != total or not done:
        raise ValueError(f"{done} examples to estimate Fisher information from, expected {total}")
    return dict(zip(shared, squares.result(), strict=True))


class _MeanOfSquares:
    """Averages weighted squares of gradients."""

    def __init__(self, like: Iterable[Tensor]) -> None:
        self._sums = [torch.zeros_like(p, dtype=_precise(p)) for p in like]
        self._count = 0

    def add(self, gradients: Iterable[Tensor], weight: float) -> None:
        """Take a gradient of the current example with its probability ``weight``."""
        for sum_, gradient in zip(self._sums, gradients, strict=True):
            sum_.addcmul_(gradient, gradient, value=weight)

    def example_done(self) -> None:
        """Count the current example."""
        self._count += 1

    def result(self) -> list[Tensor]:
        """Return the mean over the examples."""
        return [sum_ / self._count for sum_ in self._sums]


class _MeanOfSquaredMeans(_MeanOfSquares):
    """Averages squares of the mean gradients over ``batch_size`` examples."""

    def __init__(self, like: Iterable[Tensor], batch_size: int) -> None:
        super().__init__(like)
        self._totals = [torch.zeros_like(sum_) for sum_ in self._sums]
        self._batch_size, self._examples = batch_size, 0

    def add(self, gradients: Iterable[Tensor], weight: float) -> None:
        for total, gradient in zip(self._totals, gradients, strict=True):
            total.add_(gradient, alpha=weight)

    def example_done(self) -> None:
        self._examples += 1
        if self._examples == self._batch_size:
            self._end_batch()

    def result(self) -> list[Tensor]:
        if self._examples:
            self._end_batch()
        return super().result()

    def _end_batch(self) -> None:
        super().add([total / self._examples for total in self._totals], 1.0)
        super().example_done()
        self._totals = [torch.zeros_like(total) for total in self._totals]
        self._examples = 0


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _log_probabilities(model: ContinualClassifier, ids: Tensor, task: int) -> Tensor:
    """Return the log-probabilities ``[classes]`` of one text ``[1, tokens]``."""
    logits = model(ids.to(model.device), None, task)[0]
    return torch.log_softmax(logits.to(_precise(logits)), -1)


def _one_by_one(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, int, int]]:
    """Yield token ids ``[1, tokens]`` without padding, label and task of every example."""
    for batch in batches:
        for ids, mask, label in zip(*batch[:3], strict=True):
            yield ids[mask.bool()].unsqueeze(0), int(label), batch.task


def _weighted_classes(
    log_p: Tensor, label: int, estimator: Estimator, generator: torch.Generator
) -> list[tuple[float, int]]:
    """Return which classes to differentiate the log-probability of, each with its weight."""
    if estimator in ("empirical", "batched"):
        return [(1.0, label)]
    p = log_p.detach().exp().double().cpu()
    if estimator == "sampled":
        return [(1.0, int(torch.multinomial(p, 1, generator=generator)))]
    return [(probability, c) for c, probability in enumerate(p.tolist())]


@contextmanager
def _undisturbed(model: ContinualClassifier) -> Iterator[None]:
    """Make gradients of ``model`` exact and repeatable, and leave its mode as it was."""
    training = model.training
    model.eval()
    try:
        with (
            torch.enable_grad(),
            torch.autocast(model.device.type, enabled=False),
            sdpa_kernel(SDPBackend.MATH),  # fused attention is not deterministic on CUDA
        ):
            yield
    finally:
        model.train(training)
