from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import encoders
from encoders import learn_something, some_batch, tiny_model
from methods.conformance import assert_same_random_state
from plora_cl.checkpoint.snapshot.staging import separate_copy
from plora_cl.data.batches import Batch
from plora_cl.methods.ewc.fisher import FisherSums, diagonal_fisher
from plora_cl.methods.ewc.settings import Estimator
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import RandomState
from plora_cl.units import run_through

ESTIMATORS: tuple[Estimator, ...] = ("exact", "sampled", "empirical", "batched")


def learned_model(family: str = "bert", shared: str = "layernorm") -> ContinualClassifier:
    model = tiny_model(family, tasks=(2, 3), shared=shared, pooling="mean")
    learn_something(model)
    return model


def fisher(
    model: ContinualClassifier,
    batches: Sequence[Batch],
    estimator: Estimator,
    *,
    seed: int = 5,
    batch_size: int = 2,
) -> dict[str, Tensor]:
    sums = FisherSums(estimator, seed=seed, batch_size=batch_size)
    total = sum(len(batch.labels) for batch in batches)
    return run_through(diagonal_fisher(model, batches, sums, total=total))


def squared_gradients(model: ContinualClassifier, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward(retain_graph=True)
    gradients = [parameter.grad for parameter in model.shared_parameters().values()]
    return [gradient.square() for gradient in gradients if gradient is not None]


def by_definition(
    model: ContinualClassifier, batch: Batch, estimator: Estimator, *, seed: int = 5
) -> dict[str, Tensor]:
    """Evaluate the formula in float64, on the padded rows, one backward pass at a time."""
    model = copy.deepcopy(model).double().eval()
    rows = len(batch.labels)
    probabilities = torch.softmax(model(batch.input_ids, batch.attention_mask, batch.task), -1)
    log_p, labels = probabilities.log(), batch.labels.tolist()
    if estimator == "exact":
        terms = [
            (probabilities[n, c].item() / rows, log_p[n, c])
            for n in range(rows)
            for c in range(probabilities.shape[1])
        ]
    elif estimator == "batched":
        pairs = [range(rows)[i : i + 2] for i in range(0, rows, 2)]
        terms = [
            (1 / len(pairs), torch.stack([log_p[n, labels[n]] for n in pair]).mean())
            for pair in pairs
        ]
    else:
        if estimator == "sampled":
            own = torch.Generator().manual_seed(seed)
            labels = [int(torch.multinomial(p.detach(), 1, generator=own)) for p in probabilities]
        terms = [(1 / rows, log_p[n, labels[n]]) for n in range(rows)]
    total = [torch.zeros_like(p) for p in model.shared_parameters().values()]
    for weight, term in terms:
        for sum_, squared in zip(total, squared_gradients(model, term), strict=True):
            sum_ += weight * squared
    return dict(zip(model.shared_parameters(), total, strict=True))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_it_is_the_mean_of_squared_gradients(family: str, estimator: Estimator) -> None:
    model, batch = learned_model(family), some_batch(6, 3, 9, task=1, classes=3)
    found = fisher(model, [batch], estimator)
    expected = by_definition(model, batch, estimator)
    assert list(found) == list(model.shared_parameters()) == list(expected)
    largest = max(float(value.max()) for value in expected.values())
    assert largest > 0
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value.double(), expected[name], rtol=1e-3, atol=1e-5 * largest, msg=name
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_in_float64_it_is_the_formula_to_ten_digits(estimator: Estimator) -> None:
    model, batch = learned_model().double(), some_batch(6, 3, 9, 5, 4, task=1, classes=3)
    found, expected = fisher(model, [batch], estimator), by_definition(model, batch, estimator)
    for name, value in found.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-16, msg=name)


def test_the_estimators_differ_and_agree_where_they_must() -> None:
    model, batch = learned_model(), some_batch(6, 3, 9, 5, task=1, classes=3)
    found = {
        e: torch.cat([*map(torch.flatten, fisher(model, [batch], e).values())]) for e in ESTIMATORS
    }
    pairs = itertools.combinations(found.values(), 2)
    assert not any(torch.allclose(one, other, rtol=0.01) for one, other in pairs)
    one_each = fisher(model, [batch], "batched", batch_size=1)
    for name, value in fisher(model, [batch], "empirical").items():
        torch.testing.assert_close(one_each[name], value)


def test_sampled_labels_follow_the_probabilities_of_the_model() -> None:
    model, batch = learned_model(), some_batch(4, task=1, classes=3)
    with torch.no_grad():
        dict(model.heads[1].named_parameters())["bias"].copy_(torch.tensor([0.0, 1.0, -1.0]))
        p = torch.softmax(model.eval()(*batch[:2], 1)[0], -1)
    of_class = [
        torch.cat(
            [*map(torch.flatten, fisher(model, [batch._replace(labels=c)], "empirical").values())]
        )
        for c in torch.arange(3).unsqueeze(1)
    ]
    draws = 300
    drawn = []
    for seed in range(draws):
        value = torch.cat(
            [*map(torch.flatten, fisher(model, [batch], "sampled", seed=seed).values())]
        )
        (c,) = [c for c, expected in enumerate(of_class) if torch.allclose(value, expected)]
        drawn.append(c)
    shares = torch.bincount(torch.tensor(drawn), minlength=3) / draws
    three_sigma = 3 * (p * (1 - p) / draws).sqrt()
    assert ((shares - p).abs() < three_sigma).all()


def test_sampled_labels_are_the_same_for_the_same_seed() -> None:
    model, batch = learned_model(), some_batch(6, 3, 9, 5, 4, task=1, classes=3)
    one, again, other = (fisher(model, [batch], "sampled", seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_sampling_without_a_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="seed"):
        FisherSums("sampled")


def test_shared_weights_below_an_adapter_are_found() -> None:
    model, batch = learned_model(shared=r"layer\.0\.attention\.self\.query\.weight"), some_batch(4)
    found, expected = fisher(model, [batch], "exact"), by_definition(model, batch, "exact")
    assert list(found) == ["encoder.layer.0.attention.self.query.weight"]
    (name,) = found
    torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_neither_padding_nor_batching_changes_a_bit(estimator: Estimator) -> None:
    model, batch = learned_model(), some_batch(6, 3, 9, task=1, classes=3)
    together = fisher(model, [batch], estimator)
    rows = [
        Batch(
            batch.input_ids[i : i + 1, :length],
            batch.attention_mask[i : i + 1, :length],
            batch.labels[i : i + 1],
            batch.task,
        )
        for i, length in enumerate((6, 3, 9))
    ]
    alone = fisher(model, rows, estimator)
    assert all(torch.equal(together[name], alone[name]) for name in together)


def test_only_the_empirical_and_the_batched_estimate_look_at_the_labels() -> None:
    model, batch = learned_model(), some_batch(6, 3, task=1, classes=3)
    relabelled = batch._replace(labels=2 - batch.labels)
    for estimator in ESTIMATORS:
        one, other = (fisher(model, [b], estimator) for b in (batch, relabelled))
        same = all(torch.equal(one[name], other[name]) for name in one)
        assert same == (estimator in ("exact", "sampled"))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_that_play_no_part_have_no_information(estimator: Estimator) -> None:
    model = learned_model("bert", shared="word_embeddings|LayerNorm")
    batch = some_batch(4)
    found = fisher(model, [batch], estimator)
    embeddings = found["embeddings.word_embeddings.weight"]
    seen = set(batch.input_ids.flatten().tolist())
    assert {row for row in range(len(embeddings)) if embeddings[row].abs().max() > 0} == seen


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_generators_are_left_alone(training: bool) -> None:
    model = learned_model().train(training)
    modes = {name: module.training for name, module in model.named_modules()}
    before = RandomState.seeded(1).state_dict()
    for estimator in ESTIMATORS:
        first, second = (fisher(model, [some_batch(5, 4, 6)], estimator) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same_random_state(before)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.parameters())


def test_mixed_precision_around_it_has_no_influence() -> None:
    model = learned_model()
    plain = fisher(model, [some_batch(5)], "exact")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mixed = fisher(model, [some_batch(5)], "exact")
    assert all(torch.equal(plain[name], mixed[name]) for name in plain)


def test_an_error_leaves_the_mode_as_it_was() -> None:
    model = learned_model().train()
    with pytest.raises(IndexError):
        fisher(model, [some_batch(5)._replace(labels=torch.tensor([7]))], "empirical")
    assert model.training


def test_a_unit_is_an_example() -> None:
    batches = [some_batch(5, 4), some_batch(3)]
    sums = FisherSums("empirical")
    told = list(diagonal_fisher(learned_model(), batches, sums, total=3, what="F"))
    assert told == [("F", 1, 3), ("F", 2, 3), ("F", 3, 3)]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("seen", [1, 2, 3, 4])
def test_sums_that_were_saved_after_any_example_end_in_the_same_bits(
    estimator: Estimator, seen: int
) -> None:
    model, batches = learned_model(), [some_batch(n, task=1, classes=3) for n in (6, 3, 9, 5, 4)]
    whole = fisher(model, batches, estimator, batch_size=3)
    first = FisherSums(estimator, seed=5, batch_size=3)
    list(itertools.islice(diagonal_fisher(model, batches, first, total=5), seen))
    rest = FisherSums(estimator, seed=99, batch_size=3)
    rest.load_state_dict(separate_copy(first.state_dict()))
    found = run_through(diagonal_fisher(model, batches[seen:], rest, total=5))
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_wrong_number_of_examples_is_an_error() -> None:
    for batches, total in (([some_batch(5)], 2), ([], 0)):
        with pytest.raises(ValueError, match=f"expected {total}"):
            run_through(diagonal_fisher(learned_model(), batches, FisherSums("exact"), total=total))
