from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plora_cl.evaluation import metrics

NAN = math.nan
#            on task:  0    1    2       after learning
RESULTS = np.array(
    [
        [0.9, 0.3, NAN],  # 0
        [0.5, 0.8, 0.4],  # 1
        [0.6, 0.7, 1.0],  # 2
    ]
)
UNTRAINED = np.array([0.25, 0.5, 0.1])


def test_average_accuracy_is_the_mean_of_the_last_row() -> None:
    assert metrics.average_accuracy(RESULTS) == pytest.approx((0.6 + 0.7 + 1.0) / 3)


def test_learning_accuracy_is_the_mean_right_after_learning() -> None:
    assert metrics.learning_accuracy(RESULTS) == pytest.approx((0.9 + 0.8 + 1.0) / 3)


def test_backward_transfer_compares_the_end_with_the_moment_of_learning() -> None:
    expected = ((0.6 - 0.9) + (0.7 - 0.8)) / 2
    assert metrics.backward_transfer(RESULTS) == pytest.approx(expected)


def test_forward_transfer_compares_the_task_before_with_the_untrained_model() -> None:
    expected = ((0.3 - 0.5) + (0.4 - 0.1)) / 2
    assert metrics.forward_transfer(RESULTS, UNTRAINED) == pytest.approx(expected)


def test_forgetting_is_the_fall_from_the_best_score_since_learning() -> None:
    dip = RESULTS.copy()
    dip[1, 0] = 0.95  # better than right after learning
    assert metrics.forgetting(dip) == pytest.approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2)


def test_forgetting_ignores_scores_from_before_a_task_was_learned() -> None:
    lucky = RESULTS.copy()
    lucky[0, 1] = 0.99
    assert metrics.forgetting(lucky) == metrics.forgetting(RESULTS)


def test_anytime_accuracy_averages_over_the_tasks_seen_so_far() -> None:
    expected = (0.9 + (0.5 + 0.8) / 2 + (0.6 + 0.7 + 1.0) / 3) / 3
    assert metrics.average_anytime_accuracy(RESULTS) == pytest.approx(expected)


def test_a_single_task_has_no_transfer_and_no_forgetting() -> None:
    one = np.array([[0.75]])
    assert metrics.average_accuracy(one) == 0.75
    assert metrics.learning_accuracy(one) == 0.75
    assert metrics.average_anytime_accuracy(one) == 0.75
    assert metrics.backward_transfer(one) is None
    assert metrics.forward_transfer(one, np.array([0.5])) is None
    assert metrics.forgetting(one) is None


@pytest.mark.parametrize(
    ("missing", "undefined"),
    [
        ((2, 0), {"average_accuracy", "backward_transfer", "forgetting", "anytime"}),
        ((1, 0), {"forgetting", "anytime"}),
        ((0, 1), {"forward_transfer"}),
        ((1, 1), {"backward_transfer", "forgetting", "learning_accuracy", "anytime"}),
        ((0, 2), set()),
    ],
)
def test_what_needs_a_cell_that_was_never_measured_is_undefined(
    missing: tuple[int, int], undefined: set[str]
) -> None:
    holed = RESULTS.copy()
    holed[missing] = NAN
    values = {
        "average_accuracy": metrics.average_accuracy(holed),
        "backward_transfer": metrics.backward_transfer(holed),
        "forward_transfer": metrics.forward_transfer(holed, UNTRAINED),
        "forgetting": metrics.forgetting(holed),
        "learning_accuracy": metrics.learning_accuracy(holed),
        "anytime": metrics.average_anytime_accuracy(holed),
    }
    assert {name for name, value in values.items() if value is None} == undefined


@st.composite
def matrices(draw: st.DrawFn) -> metrics.Matrix:
    tasks = draw(st.integers(2, 6))
    cell = st.floats(0, 1)
    row = st.lists(cell, min_size=tasks, max_size=tasks)
    return np.array(draw(st.lists(row, min_size=tasks, max_size=tasks)))


@given(matrices())
def test_average_accuracy_is_learning_accuracy_plus_weighted_backward_transfer(
    results: metrics.Matrix,
) -> None:
    tasks = len(results)
    average, learned = metrics.average_accuracy(results), metrics.learning_accuracy(results)
    transfer = metrics.backward_transfer(results)
    assert average is not None
    assert learned is not None
    assert transfer is not None
    assert average == pytest.approx(learned + (tasks - 1) / tasks * transfer, abs=1e-12)


@given(matrices())
def test_forgetting_is_at_least_minus_backward_transfer(results: metrics.Matrix) -> None:
    forgetting, transfer = metrics.forgetting(results), metrics.backward_transfer(results)
    assert forgetting is not None
    assert transfer is not None
    assert forgetting >= -transfer - 1e-12


def test_scores_are_accuracy_and_the_mean_of_the_f1_of_every_class() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    accuracy, f1 = metrics.scores(predicted, labels, classes=2)
    assert accuracy == 0.75
    assert f1 == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_a_class_that_never_occurs_counts_as_f1_zero() -> None:
    same = np.array([0, 1, 0, 1])
    assert metrics.scores(same, same, classes=4) == (1.0, 0.5)


@given(
    st.integers(1, 8).flatmap(
        lambda tasks: st.lists(
            st.lists(st.floats(0, 1), min_size=tasks, max_size=tasks),
            min_size=tasks,
            max_size=tasks,
        )
    )
)
def test_average_accuracy_is_learning_accuracy_and_backward_transfer(
    rows: list[list[float]],
) -> None:
    results, tasks = np.array(rows), len(rows)
    metrics.require_identity(results)
    found = (
        metrics.average_accuracy(results),
        metrics.learning_accuracy(results),
        metrics.backward_transfer(results) if tasks > 1 else 0.0,
    )
    assert None not in found
    acc, la, bwt = (float(value or 0) for value in found)
    assert acc == pytest.approx(la + (tasks - 1) / tasks * bwt, abs=1e-12)


def test_a_metric_that_breaks_the_identity_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "backward_transfer", lambda results: -0.1)
    with pytest.raises(AssertionError, match="ACC is"):
        metrics.require_identity(RESULTS)


def test_the_identity_asks_nothing_of_scores_never_measured() -> None:
    hole = RESULTS.copy()
    hole[0, 0] = NAN
    metrics.require_identity(hole)
