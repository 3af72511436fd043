"""The statistics of the verdict: whether one series is larger than another, by what factor, and how sure that is.

All of it is pure. The tests are one-sided: how likely is a difference at least as large upwards if there is none?

- `larger` is the rank-sum test of Mann and Whitney (1947), stratified as by van Elteren (1960) with equal weights; its
  estimate is that of Hodges and Lehmann (1963), its interval that of Moses (Hollander, Wolfe and Chicken,
  Nonparametric Statistical Methods, 4.1 to 4.3), both on ratios.
- `more_often` is Fisher's exact test (1935).
- `upper_bound` is that of Clopper and Pearson (1934): 3/n where none of n failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, median

__all__ = ["Effect", "Stratum", "larger", "least", "more_often", "upper_bound"]

CONFIDENCE = 0.95
EXACT = 2500  # pairs of values; beyond that the normal approximation, which says a little less

Stratum = tuple[Sequence[float], Sequence[float]]  # values before and now, all positive, that are fairly compared


@dataclass(frozen=True)
class Effect:
    """How much larger the values are now than before.

    `ratio` is between `low` and `high` with 95 % confidence (None: too few values to say); `more` is the difference, in
    the unit of the values. `p`: how likely it is to see that much if nothing is larger.
    """

    ratio: float
    low: float | None
    high: float | None
    more: float
    p: float


def larger(strata: Sequence[Stratum]) -> Effect:
    """Compare the values of now with those of before, within each stratum; at least one has both."""
    pairs = [(a, b) for old, new in strata for a in old for b in new]
    ratios = sorted(b / a for a, b in pairs)
    # A tie is half a win, and the rest is as without ties: then the test says a little less than it could.
    wins = math.floor(sum(1.0 if ratio > 1 else 0.5 if ratio == 1 else 0.0 for ratio in ratios))
    sizes = tuple(sorted((len(old), len(new)) for old, new in strata if old and new))
    if len(pairs) <= EXACT:
        counts = _arrangements(sizes)
        whole = sum(counts)
        p, cut, outside = sum(counts[wins:]) / whole, 0, counts[0]
        while outside <= (1 - CONFIDENCE) / 2 * whole:
            cut += 1
            outside += counts[cut]
    else:
        variance = sum(n * m * (n + m + 1) / 12 for n, m in sizes)
        normal = NormalDist(len(pairs) / 2, math.sqrt(variance))
        p, cut = 1 - normal.cdf(wins - 0.5), max(0, math.floor(normal.inv_cdf((1 - CONFIDENCE) / 2)))
    low, high = (ratios[cut - 1], ratios[-cut]) if cut else (None, None)
    return Effect(median(ratios), low, high, median(b - a for a, b in pairs), p)


def least(strata: Sequence[Stratum]) -> float:
    """Return the smallest p-value that so many values can show."""
    return math.prod(1 / math.comb(len(old) + len(new), len(new)) for old, new in strata)


def upper_bound(failed: int, n: int) -> float:
    """Return the largest rate of failures that goes with `failed` of `n`, with 95 % confidence. `n` is positive."""
    if failed >= n:
        return 1.0
    low, high = failed / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(failed, n, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def more_often(old: tuple[int, int], new: tuple[int, int]) -> float:
    """Return how likely it is that so many more fail in `new` by chance; each is (failed, all)."""
    (a, n), (b, m) = old, new
    whole = math.comb(n + m, a + b)
    return sum(math.comb(m, k) * math.comb(n, a + b - k) for k in range(b, min(m, a + b) + 1)) / whole


@lru_cache(maxsize=64)
def _arrangements(sizes: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Return in how many orders of the values 0, 1, … pairs are won: the product of Gaussian binomial coefficients."""
    total = sum(n * m for n, m in sizes)
    counts = [1] + [0] * total
    for n, m in sizes:
        for i in range(1, n + 1):
            for u in range(total, m + i - 1, -1):  # times 1 - q^(m + i)
                counts[u] -= counts[u - m - i]
            for u in range(i, total + 1):  # divided by 1 - q^i
                counts[u] += counts[u - i]
    return tuple(counts)


def _at_most(k: int, n: int, rate: float) -> float:
    """Return how likely at most `k` of `n` fail at this `rate`."""
    logs = (math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1))
    terms = (log + i * math.log(rate) + (n - i) * math.log1p(-rate) for i, log in enumerate(logs)) if rate else (0.0,)
    return sum(map(math.exp, terms))
