from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import encoders
from encoders import learn_something, some_batch, tiny_model
from methods.conformance import assert_same_random_state, silent
from plora_cl.data.batches import Batch
from plora_cl.methods.fisher import Estimator, diagonal_fisher
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import RandomState

ESTIMATORS: tuple[Estimator, ...] = ("exact", "empirical")


def learned_model(family: str = "bert", shared: str = "layernorm") -> ContinualClassifier:
    model = tiny_model(family, tasks=(2, 3), shared=shared, pooling="mean")
    learn_something(model)
    return model


def by_definition(
    model: ContinualClassifier, batch: Batch, estimator: Estimator
) -> dict[str, Tensor]:
    """Evaluate the formula in float64, on the padded rows, one backward pass at a time."""
    model = copy.deepcopy(model).double().eval()
    shared = model.shared_parameters()
    total = {name: torch.zeros_like(p) for name, p in shared.items()}
    for row, label in enumerate(batch.labels):
        probabilities = torch.softmax(
            model(batch.input_ids[row : row + 1], batch.attention_mask[row : row + 1], batch.task),
            -1,
        )[0]
        classes = range(len(probabilities)) if estimator == "exact" else [int(label)]
        for c in classes:
            model.zero_grad()
            probabilities[c].log().backward(retain_graph=True)
            weight = probabilities[c].item() if estimator == "exact" else 1.0
            for name, parameter in shared.items():
                assert parameter.grad is not None
                total[name] += weight * parameter.grad.square() / len(batch.labels)
    return total


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_it_is_the_mean_of_squared_per_example_gradients(family: str, estimator: Estimator) -> None:
    model, batch = learned_model(family), some_batch(6, 3, 9, task=1, classes=3)
    found = diagonal_fisher(model, [batch], estimator=estimator, progress=silent, total=3)
    expected = by_definition(model, batch, estimator)
    assert list(found) == list(model.shared_parameters()) == list(expected)
    largest = max(float(value.max()) for value in expected.values())
    assert largest > 0
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value.double(), expected[name], rtol=1e-3, atol=1e-5 * largest, msg=name
        )


def test_shared_weights_below_an_adapter_are_found() -> None:
    model, batch = learned_model(shared=r"layer\.0\.attention\.self\.query\.weight"), some_batch(4)
    found = diagonal_fisher(model, [batch], estimator="exact", progress=silent, total=1)
    expected = by_definition(model, batch, "exact")
    assert list(found) == ["encoder.layer.0.attention.self.query.weight"]
    (name,) = found
    torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_neither_padding_nor_batching_changes_a_bit(estimator: Estimator) -> None:
    model, batch = learned_model(), some_batch(6, 3, 9, task=1, classes=3)
    together = diagonal_fisher(model, [batch], estimator=estimator, progress=silent, total=3)
    rows = [
        Batch(
            batch.input_ids[i : i + 1, :length],
            batch.attention_mask[i : i + 1, :length],
            batch.labels[i : i + 1],
            batch.task,
        )
        for i, length in enumerate((6, 3, 9))
    ]
    alone = diagonal_fisher(model, rows, estimator=estimator, progress=silent, total=3)
    assert all(torch.equal(together[name], alone[name]) for name in together)


def test_only_the_empirical_estimate_looks_at_the_labels() -> None:
    model, batch = learned_model(), some_batch(6, 3, task=1, classes=3)
    relabelled = batch._replace(labels=2 - batch.labels)
    for estimator in ESTIMATORS:
        one, other = (
            diagonal_fisher(model, [b], estimator=estimator, progress=silent, total=2)
            for b in (batch, relabelled)
        )
        same = all(torch.equal(one[name], other[name]) for name in one)
        assert same == (estimator == "exact")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_that_play_no_part_have_no_information(estimator: Estimator) -> None:
    model = learned_model("bert", shared="word_embeddings|LayerNorm")
    batch = some_batch(4)
    found = diagonal_fisher(model, [batch], estimator=estimator, progress=silent, total=1)
    embeddings = found["embeddings.word_embeddings.weight"]
    seen = set(batch.input_ids.flatten().tolist())
    assert {row for row in range(len(embeddings)) if embeddings[row].abs().max() > 0} == seen


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_generators_are_left_alone(training: bool) -> None:
    model = learned_model().train(training)
    modes = {name: module.training for name, module in model.named_modules()}
    before = RandomState.seeded(1).state_dict()
    first, second = (
        diagonal_fisher(model, [some_batch(5)], estimator="exact", progress=silent, total=1)
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same_random_state(before)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.parameters())


def test_mixed_precision_around_it_has_no_influence() -> None:
    model = learned_model()
    plain = diagonal_fisher(model, [some_batch(5)], estimator="exact", progress=silent, total=1)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mixed = diagonal_fisher(model, [some_batch(5)], estimator="exact", progress=silent, total=1)
    assert all(torch.equal(plain[name], mixed[name]) for name in plain)


def test_an_interruption_leaves_the_mode_as_it_was() -> None:
    model = learned_model().train()

    def interrupt(what: str, done: int, total: int, /) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagonal_fisher(model, [some_batch(5)], estimator="exact", progress=interrupt, total=1)
    assert model.training


def test_progress_is_told_after_every_example() -> None:
    told: list[tuple[str, int, int]] = []

    def note(what: str, done: int, total: int, /) -> None:
        told.append((what, done, total))

    batches = [some_batch(5, 4), some_batch(3)]
    diagonal_fisher(
        learned_model(), batches, estimator="empirical", progress=note, total=3, what="F"
    )
    assert told == [("F", 1, 3), ("F", 2, 3), ("F", 3, 3)]


def test_a_wrong_number_of_examples_is_an_error() -> None:
    for batches, total in (([some_batch(5)], 2), ([], 0)):
        with pytest.raises(ValueError, match=f"expected {total}"):
            diagonal_fisher(
                learned_model(), batches, estimator="exact", progress=silent, total=total
            )
