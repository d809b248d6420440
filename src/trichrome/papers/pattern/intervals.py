"""Intervals of effects: over seeds (Student's), or over queries (paired bootstrap)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from trichrome.evaluation.significance import SAMPLES, resampled_means
from trichrome.papers.pattern.paper import Interval

#: [Q] of each run, in a list or as [S, Q].
Runs: TypeAlias = "Sequence[NDArray[Any]] | NDArray[Any]"


def over_seeds(differences: Sequence[float], scale: float = 1.0) -> Interval:
    """The mean of treatment minus baseline over independent repetitions, one number each, with Student's
    95 % interval. scale: multiplies all (100 for points). ValueError for fewer than two."""
    column = np.asarray(differences, np.float64) * scale
    if len(column) < 2:
        raise ValueError("an interval needs at least two repetitions")
    half = float(student.ppf(0.975, len(column) - 1) * column.std(ddof=1) / len(column) ** 0.5)
    mean = float(column.mean())
    return Interval(mean, mean - half, mean + half, len(column), f"Student's t over {len(column)} seeds")


def over_queries(treatment: NDArray[Any], baseline: NDArray[Any], scale: float = 1.0) -> Interval:
    """The mean of treatment minus baseline over queries, with the paired bootstrap's 95 % interval.

    Both [Q], or [S, Q] of S seeds, of which each query's mean is taken first: the interval then speaks of
    other queries, not of other seeds.
    """
    values = np.stack([np.atleast_2d(x).mean(0) for x in (treatment, baseline)], axis=1)  # [Q, 2]
    sampled = resampled_means(values * scale)
    low, high = np.percentile(sampled[:, 0] - sampled[:, 1], [2.5, 97.5])
    effect = float((values[:, 0] - values[:, 1]).mean() * scale)
    return Interval(effect, float(low), float(high), len(values), f"paired bootstrap, {SAMPLES} samples")


def of_runs(treatment: Runs, baseline: Runs) -> Interval:
    """In points, of runs of [Q] values each: over seeds where there are several runs, else over queries."""
    if len(treatment) > 1:
        return over_seeds([float((a - b).mean()) for a, b in zip(treatment, baseline, strict=True)], 100)
    return over_queries(treatment[0], baseline[0], 100)
