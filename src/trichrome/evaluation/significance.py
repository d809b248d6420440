"""The paired bootstrap over queries: is one system better than another, or were the queries lucky?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000
#: Numbers drawn at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Comparison:
    """System a against system b on one metric.

    difference: mean of a minus mean of b. low, high: its percentile interval at `confidence`.
    p: two-sided, the achieved significance level 2 · min(P(d* ≤ 0), P(d* ≥ 0)) of the resampled
    differences d*, each count plus one, at most 1 (Efron and Tibshirani 1993; Sakai, SIGIR 2006).
    """

    metric: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    queries: int
    samples: int
    confidence: float = 0.95


def resampled_means(values: NDArray[Any], samples: int = SAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """[Q, S] values of S systems on the same Q queries → [samples, S] means of Q queries drawn with
    replacement; each sample draws the same queries for every system, which is what makes it paired."""
    queries = len(values)
    if not queries:
        raise ValueError("the bootstrap needs at least one query")
    rng = np.random.default_rng(seed)
    result = np.empty((samples, values.shape[1]))
    step = max(1, _BLOCK // queries)
    for start in range(0, samples, step):
        count = min(step, samples - start)
        drawn = rng.integers(queries, size=(count, queries), dtype=np.int32)
        drawn += (np.arange(count, dtype=np.int32) * queries)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        result[start : start + count] = times @ values / queries
    return result


def paired_bootstrap(
    metric: str,
    systems: Sequence[str],
    values: NDArray[Any],
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Comparison]:
    """Every pair of systems (a before b in `systems`), given [Q, S] values per query."""
    sampled = resampled_means(np.asarray(values, np.float64), samples, seed)
    observed = np.asarray(values, np.float64).mean(axis=0)
    tail = 50 * (1 - confidence)
    comparisons = []
    for a, b in combinations(range(len(systems)), 2):
        differences = sampled[:, a] - sampled[:, b]
        low, high = np.percentile(differences, [tail, 100 - tail])
        # sums of the same numbers in another order differ in the last bits: that is no difference
        worse = int((differences <= 1e-12).sum())
        better = int((differences >= -1e-12).sum())
        comparisons.append(
            Comparison(
                metric=metric,
                a=systems[a],
                b=systems[b],
                difference=float(observed[a] - observed[b]),
                low=float(low),
                high=float(high),
                p=min(1.0, 2 * (1 + min(worse, better)) / (samples + 1)),
                queries=len(values),
                samples=samples,
                confidence=confidence,
            )
        )
    return comparisons
