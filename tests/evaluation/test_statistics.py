"""Intervals, tests and effect sizes against numbers by hand and against SciPy's own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from plora_cl.study.statistics import MOST_EXACT_PAIRS, compare, estimate, independent

MINE = [0.71, 0.74, 0.69, 0.77, 0.72, 0.70]
BASELINE = [0.75, 0.76, 0.74, 0.78, 0.71, 0.75]


def test_the_interval_of_three_values_is_the_one_computed_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # of t with 2 degrees of freedom, closed form
    half = quantile * 1 / math.sqrt(3)
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-9)


def test_one_value_has_a_mean_and_no_spread() -> None:
    found = estimate([0.5])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 0.5, None, None, None)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_t_test_and_interval_are_those_of_scipy() -> None:
    found, expected = compare(MINE, BASELINE), stats.ttest_rel(MINE, BASELINE)
    interval = expected.confidence_interval(0.95)
    assert found.t_p == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.difference.low == pytest.approx(interval.low, abs=1e-12)
    assert found.difference.high == pytest.approx(interval.high, abs=1e-12)


def test_the_permutation_test_is_that_of_scipy() -> None:
    expected = stats.permutation_test(
        (np.subtract(MINE, BASELINE),), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert compare(MINE, BASELINE).permutation_p == pytest.approx(expected.pvalue, abs=1e-12)


def test_three_differences_of_one_sign_have_a_permutation_p_of_one_quarter() -> None:
    assert compare([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).permutation_p == 0.25


def test_differences_that_differ_in_their_last_bits_count_as_equal() -> None:
    # 0.1 + 0.2 - 0.3 is 5.5e-17 in floats; without its signs the sum is as far from 0.
    assert compare([0.1, 0.2, -0.3, 0.001], [0.0] * 4).permutation_p == 1.0


def test_differences_that_are_equal_but_for_rounding_have_no_spread() -> None:
    found = compare([0.600, 0.905, 0.825], [0.580, 0.885, 0.805])
    assert (found.difference.sd, found.t_p, found.d_z, found.g_z) == (0.0, None, None, None)
    assert found.difference.low == found.difference.high == found.difference.mean
    assert found.difference.mean == pytest.approx(0.02)


def test_many_pairs_are_sampled_the_same_way_each_time_and_close_to_the_exact_value() -> None:
    generator = np.random.default_rng(0)
    mine = generator.normal(0.3, 1.0, MOST_EXACT_PAIRS + 1).tolist()
    zeros = [0.0] * len(mine)
    found = compare(mine, zeros).permutation_p
    assert found == compare(mine, zeros).permutation_p
    exact = stats.permutation_test(
        (np.asarray(mine),), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert found == pytest.approx(exact.pvalue, abs=0.01)


def test_effect_sizes_are_mean_over_standard_deviation_and_its_small_sample_correction() -> None:
    found = compare([1.0, 2.0, 3.0, 6.0], [0.0] * 4)
    sd = math.sqrt(14 / 3)
    correction = math.gamma(1.5) / (math.sqrt(1.5) * math.gamma(1.0))  # 3 degrees of freedom
    assert found.d_z == pytest.approx(3 / sd, abs=1e-12)
    assert found.g_z == pytest.approx(3 / sd * correction, abs=1e-12)


def test_differences_without_spread_have_neither_t_test_nor_effect_size() -> None:
    found = compare([0.5, 0.5], [0.5, 0.5])
    assert (found.t_p, found.d_z, found.g_z, found.permutation_p) == (None, None, None, 1.0)


def test_two_pairs_are_too_few_for_the_correction() -> None:
    found = compare([1.0, 2.0], [0.0, 0.0])
    assert found.d_z is not None
    assert found.g_z is None


def test_values_without_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="do not make pairs"):
        compare([1.0, 2.0], [1.0])


def test_with_two_orders_or_more_an_order_is_the_unit_with_one_a_seed() -> None:
    several = independent([1.0, 3.0, 4.0, 6.0, 8.0], ["a", "a", "b", "b", "b"])
    assert (several.of, several.values, several.runs) == ("order", (2.0, 6.0), 5)
    one = independent([1.0, 3.0], ["a", "a"])
    assert (one.of, one.values, one.runs) == ("seed", (1.0, 3.0), 2)


def test_orders_that_differ_more_than_seeds_give_false_positives_as_rarely_as_promised() -> None:
    """Three orders of six seeds, no effect, order noise 2.5 times that of seeds."""
    generator = np.random.default_rng(20)
    orders = [order for order in "abc" for _ in range(6)]
    zeros = [0.0] * 3
    trials, by_order, pooled = 4000, 0, 0
    for _ in range(trials):
        noise = np.repeat(generator.normal(0, 2.5, 3), 6) + generator.normal(0, 1, 18)
        values = independent(noise.tolist(), orders).values
        by_order += (compare(values, zeros).t_p or 0) < 0.05
        pooled += (stats.ttest_1samp(noise, 0).pvalue) < 0.05
    assert pooled / trials > 0.4  # what taking every run for independent would do
    # Four standard errors, 4 * sqrt(.05 * .95 / 4000), either way
    assert by_order / trials == pytest.approx(0.05, abs=0.014)


def test_one_order_with_seed_noise_alone_gives_false_positives_as_rarely_as_promised() -> None:
    generator = np.random.default_rng(21)
    trials, found = 4000, 0
    for _ in range(trials):
        values = independent(generator.normal(0, 1, 3).tolist(), ["a"] * 3).values
        found += (compare(values, [0.0] * 3).t_p or 0) < 0.05
    assert found / trials == pytest.approx(0.05, abs=0.014)
