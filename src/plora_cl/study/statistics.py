"""Statistics over repeated runs: intervals, paired tests and effect sizes.

A statistic that is undefined, because there are too few values or they do not differ, is None.
Every function treats its values as independent; `independent` returns such values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
MOST_EXACT_PAIRS = 16
"""Up to this many pairs the permutation test enumerates every assignment of signs."""

_LEAST_ORDERS = 2  # a spread has at least one degree of freedom
_RANDOM_SIGNS = 100_000
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Units:
    """Values that count as independent of one another.

    Attributes:
        of: What a value stands for: an order (the mean over its seeds) or a seed.
        values: One for each order or seed.
        runs: Number of runs that they were computed from.
    """

    of: Literal["order", "seed"]
    values: tuple[float, ...]
    runs: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        n: Number of values.
        mean: Arithmetic mean.
        sd: Sample standard deviation, with ``n - 1`` in the denominator; None for one value.
        low: Lower end of the 95 % t-interval of the mean; None for one value.
        high: Upper end.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The paired comparison of values with those of a baseline.

    Attributes:
        difference: Value minus baseline, over pairs.
        t_p: Two-sided p-value of the paired t-test.
        permutation_p: Two-sided p-value of the sign-flip permutation test of the mean; its
            smallest possible value is ``2 / 2**n``.
        d_z: Cohen's d_z, mean over standard deviation of the differences.
        g_z: d_z with Hedges' correction of its bias in small samples.
    """

    difference: Estimate
    t_p: float | None
    permutation_p: float
    d_z: float | None
    g_z: float | None


def independent(values: Sequence[float], orders: Sequence[str]) -> Units:
    """Return values that an interval or a test may treat as independent, from one value a run.

    Runs of one order share the effect of that order. With two orders or more the unit is
    therefore the order, and conclusions extend to further orders. With one order the unit is the
    seed, and conclusions hold for that order alone.

    Args:
        values: One for each run.
        orders: Name of the order of each run.

    Source: Hurlbert 1984, "Pseudoreplication and the Design of Ecological Field Experiments".
    """
    by_order: dict[str, list[float]] = {}
    for value, order in zip(values, orders, strict=True):
        by_order.setdefault(order, []).append(value)
    if len(by_order) < _LEAST_ORDERS:
        return Units("seed", tuple(values), len(values))
    means = (math.fsum(found) / len(found) for found in by_order.values())
    return Units("order", tuple(means), len(values))


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, standard deviation and 95 % t-interval, ``mean ± t(n-1) * sd / sqrt(n)``.

    Source: Student 1908, "The Probable Error of a Mean".

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values; an estimate needs at least one")
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Estimate(1, mean, None, None, None)
    sd = float(array.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def compare(values: Sequence[float], baseline: Sequence[float]) -> PairedComparison:
    """Compare ``values[k]`` with ``baseline[k]`` for all k.

    Raises:
        ValueError: There are no pairs, or the lengths differ.
    """
    differences = np.subtract(values, baseline, dtype=np.float64)
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values and {len(baseline)} baselines do not make pairs")
    difference = estimate(differences.tolist())
    size = max(map(abs, [*values, *baseline]))
    if difference.sd is not None and difference.sd <= _TOLERANCE * size:
        # Equal up to rounding: there is no spread to divide by
        difference = replace(difference, sd=0.0, low=difference.mean, high=difference.mean)
    d_z = _standardised(difference)
    return PairedComparison(
        difference,
        t_p=_t_test(difference),
        permutation_p=_sign_flip_test(differences),
        d_z=d_z,
        g_z=None if d_z is None or difference.n < 3 else d_z * _hedges(difference.n - 1),
    )


def _standardised(difference: Estimate) -> float | None:
    """Source: Cohen 1988, "Statistical Power Analysis", section 2.3.5."""
    return difference.mean / difference.sd if difference.sd else None


def _t_test(difference: Estimate) -> float | None:
    if not difference.sd:
        return None
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return float(2 * stdtr(difference.n - 1, -abs(t)))


def _hedges(freedom: int) -> float:
    """Source: Hedges 1981, "Distribution Theory for Glass's Estimator of Effect Size", eq. 6e."""
    log = math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)
    return math.exp(log) / math.sqrt(freedom / 2)


def _sign_flip_test(differences: npt.NDArray[np.float64]) -> float:
    """Return the share of sign assignments whose mean is at least as far from 0 as observed.

    Source: Fisher 1935, "The Design of Experiments", section 21.
    """
    n = len(differences)
    observed = abs(differences.sum())
    if n <= MOST_EXACT_PAIRS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        extreme, all_of_them = 0, 2**n
    else:  # the observed assignment counts as one of the draws
        signs = np.random.default_rng(n).choice((-1, 1), size=(_RANDOM_SIGNS, n))
        extreme, all_of_them = 1, _RANDOM_SIGNS + 1
    sums = np.abs(signs @ differences)
    extreme += int((sums >= observed - _TOLERANCE * np.abs(differences).sum()).sum())
    return extreme / all_of_them
