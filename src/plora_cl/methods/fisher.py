"""Diagonal Fisher information of the shared parameters, per example.

Sources: Kirkpatrick et al. 2017 (arXiv 1612.00796), eq. 3; on the estimators, van de Ven 2025
(arXiv 2502.11756).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from plora_cl.data.batches import Batch
from plora_cl.methods.base import Progress
from plora_cl.model.classifier import ContinualClassifier

Estimator: TypeAlias = Literal["exact", "empirical"]


def diagonal_fisher(
    model: ContinualClassifier,
    batches: Iterable[Batch],
    *,
    estimator: Estimator,
    progress: Progress,
    total: int,
    what: str = "Fisher information",
) -> dict[str, Tensor]:
    """Estimate the diagonal Fisher information of every shared parameter, by its encoder name.

    ``exact`` is ``1/N sum_n sum_c p(c|x_n) (d log p(c|x_n) / d theta)^2`` with the model's own
    probabilities; ``empirical`` is ``1/N sum_n (d log p(y_n|x_n) / d theta)^2`` with the true
    label. Runs in evaluation mode and float32, draws no random number, and leaves the gradients
    and the mode of the model as they were.

    Args:
        model: What to differentiate.
        batches: Examples of any tasks that the model has heads for; padding has no influence.
        estimator: ``exact`` or ``empirical``.
        progress: Told after each example.
        total: Number of examples in ``batches``.
        what: The name of this work, for ``progress``.

    Raises:
        ValueError: ``batches`` does not hold ``total`` examples, or none.
    """
    shared = model.shared_parameters()
    parameters = list(shared.values())
    sums = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    done = 0
    with _undisturbed(model):
        for ids, label, task in _one_by_one(batches):
            log_p = torch.log_softmax(model(ids.to(model.device), None, task)[0].float(), -1)
            squared = _squared_gradients(log_p, label, parameters, estimator)
            for sum_, term in zip(sums, squared, strict=True):
                sum_ += term
            done += 1
            progress(what, done, total)
    if done != total or not done:
        raise ValueError(f"{done} examples to estimate Fisher information from, expected {total}")
    return {name: sum_ / done for name, sum_ in zip(shared, sums, strict=True)}


def _one_by_one(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, int, int]]:
    """Yield token ids ``[1, tokens]`` without padding, label and task of every example."""
    for batch in batches:
        for ids, mask, label in zip(*batch[:3], strict=True):
            yield ids[mask.bool()].unsqueeze(0), int(label), batch.task


def _squared_gradients(
    log_p: Tensor, label: int, parameters: Sequence[nn.Parameter], estimator: Estimator
) -> list[Tensor]:
    """Return one example's term of the estimate for each of ``parameters``.

    Args:
        log_p: Log-probabilities ``[classes]``.
        label: The true class.
        parameters: What to differentiate by.
        estimator: ``exact`` or ``empirical``.
    """
    weighted = [(1.0, label)]
    if estimator == "exact":
        weighted = [(p, c) for c, p in enumerate(log_p.detach().exp().tolist())]
    terms = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    for probability, c in weighted:
        gradients = torch.autograd.grad(
            log_p[c], parameters, retain_graph=True, materialize_grads=True
        )
        for term, gradient in zip(terms, gradients, strict=True):
            term.addcmul_(gradient, gradient, value=probability)
    return terms


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
