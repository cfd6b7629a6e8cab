"""Diagonal Fisher information of the shared parameters, per example or per mini-batch.

Sources: Kirkpatrick et al. 2017 (arXiv 1612.00796), eq. 3; on the estimators, van de Ven 2025, "On
the Computation of the Fisher Information in Continual Learning" (arXiv 2502.11756).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from plora_cl.data.batches import Batch
from plora_cl.methods.ewc.settings import Estimator
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.evaluation_mode import evaluation_mode
from plora_cl.state import StateDict
from plora_cl.units import Unit, Units


def diagonal_fisher(
    model: ContinualClassifier,
    batches: Iterable[Batch],
    sums: FisherSums,
    *,
    total: int,
    what: str = "Fisher information",
) -> Units[dict[str, Tensor]]:
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
    and the mode of the model as they were. A unit is an example.

    Args:
        model: What to differentiate.
        batches: The examples that ``sums`` has not seen, of any tasks that the model has heads
            for; padding has no influence.
        sums: Where the estimate stands.
        total: Number of examples in all.
        what: The name of this work.

    Raises:
        ValueError: ``sums`` has not seen ``total`` examples in the end, or none.
    """
    shared = model.shared_parameters()
    parameters = list(shared.values())
    for ids, label, task in _one_by_one(batches):
        with _exact_gradients(model):
            log_p = _log_probabilities(model, ids, task)
            gradients = (
                (
                    torch.autograd.grad(
                        log_p[c], parameters, retain_graph=True, materialize_grads=True
                    ),
                    weight,
                )
                for weight, c in sums.weighted_classes(log_p, label)
            )
            sums.add_example(parameters, gradients)
        yield Unit(what, sums.examples, total)
    if sums.examples != total or not total:
        raise ValueError(
            f"{sums.examples} examples to estimate Fisher information from, expected {total}"
        )
    return dict(zip(shared, sums.result(), strict=True))


class FisherSums:
    """An estimate under way: sums of weighted squares of gradients, as a `Stateful`.

    Args:
        estimator: ``exact``, ``sampled``, ``empirical`` or ``batched``.
        seed: Draws the labels of ``sampled``, on the CPU wherever the model is.
        batch_size: ``B`` of ``batched``, at least 1: consecutive examples; the last mini-batch may
            be smaller.

    Attributes:
        examples: How many are in the sums.

    Raises:
        ValueError: ``sampled`` has no seed.
    """

    def __init__(
        self, estimator: Estimator, *, seed: int | None = None, batch_size: int = 1
    ) -> None:
        if estimator == "sampled" and seed is None:
            raise ValueError("the sampled Fisher information needs a seed for the labels it draws")
        self._estimator, self._batch_size = estimator, batch_size
        self._labels = torch.Generator().manual_seed(seed or 0)
        self.examples = 0
        self._squares: list[Tensor] = []
        self._gradients: list[Tensor] = []  # of the mini-batch under way

    def weighted_classes(self, log_p: Tensor, label: int) -> list[tuple[float, int]]:
        """Return which classes to differentiate the log-probability of, each with its weight."""
        if self._estimator in ("empirical", "batched"):
            return [(1.0, label)]
        p = log_p.detach().exp().double().cpu()
        if self._estimator == "sampled":
            return [(1.0, int(torch.multinomial(p, 1, generator=self._labels)))]
        return [(probability, c) for c, probability in enumerate(p.tolist())]

    def add_example(
        self, like: Sequence[Tensor], gradients: Iterable[tuple[Sequence[Tensor], float]]
    ) -> None:
        """Take the gradients of one example, each with its weight.

        Args:
            like: What they are gradients of.
            gradients: For each class one for each of ``like``.
        """
        batched = self._estimator == "batched"
        self._squares = _placed(self._squares, like)
        if batched:
            self._gradients = _placed(self._gradients, like)
        for of_class, weight in gradients:
            if batched:
                for total, gradient in zip(self._gradients, of_class, strict=True):
                    total.add_(gradient, alpha=weight)
            else:
                for square, gradient in zip(self._squares, of_class, strict=True):
                    square.addcmul_(gradient, gradient, value=weight)
        self.examples += 1
        if batched and self.examples % self._batch_size == 0:
            self._squares = self._with_mini_batch(self._batch_size)
            self._gradients = []

    def result(self) -> list[Tensor]:
        """Return the mean over the examples, or over the mini-batches of ``batched``."""
        if self._estimator != "batched":
            return [square / self.examples for square in self._squares]
        mini_batches, rest = divmod(self.examples, self._batch_size)
        if not rest:
            return [square / mini_batches for square in self._squares]
        return [square / (mini_batches + 1) for square in self._with_mini_batch(rest)]

    def _with_mini_batch(self, examples: int) -> list[Tensor]:
        """Return the squares with that of the mean gradient of the mini-batch under way."""
        means = [gradient / examples for gradient in self._gradients]
        pairs = zip(self._squares, means, strict=True)
        return [square.addcmul(mean, mean) for square, mean in pairs]

    def state_dict(self) -> StateDict:
        """Return the live sums, and the state of the generator of ``sampled``."""
        return {
            "examples": self.examples,
            "squares": list(self._squares),
            "gradients": list(self._gradients),
            **({"labels": self._labels.get_state()} if self._estimator == "sampled" else {}),
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        self.examples = state["examples"]
        self._squares, self._gradients = list(state["squares"]), list(state["gradients"])
        if self._estimator == "sampled":
            self._labels.set_state(state["labels"])


def _placed(sums: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """Return ``sums`` on the devices of ``like``; zeros where there are none yet."""
    if not sums:
        return [torch.zeros_like(p, dtype=_precise(p)) for p in like]
    return [sum_.to(p.device) for sum_, p in zip(sums, like, strict=True)]


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


@contextmanager
def _exact_gradients(model: ContinualClassifier) -> Iterator[None]:
    """Make gradients of ``model`` exact and repeatable, and leave its mode as it was."""
    with (
        evaluation_mode(model, gradients=True),
        torch.autocast(model.device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),  # fused attention is not deterministic on CUDA
    ):
        yield
