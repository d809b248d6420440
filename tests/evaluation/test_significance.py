"""The paired bootstrap on cases whose answer is known."""

from itertools import product

import numpy as np
import pytest

from trichrome.evaluation.significance import paired_bootstrap, resampled_means


def test_exact_distribution_of_two_queries() -> None:
    # 2 queries, differences 1 and -0.5: resampled means 1, 0.25 (twice), -0.5
    values = np.array([[1.0, 0.0], [0.0, 0.5]])
    sampled = resampled_means(values, samples=40_000, seed=1)
    differences = sampled[:, 0] - sampled[:, 1]
    expected = [np.mean(pair) for pair in product([1.0, -0.5], repeat=2)]
    for value in set(expected):
        share = np.isclose(differences, value).mean()
        assert share == pytest.approx(expected.count(value) / 4, abs=0.015)
    (c,) = paired_bootstrap("m", ["a", "b"], values, samples=40_000, seed=1)
    assert (c.a, c.b, c.queries, c.samples) == ("a", "b", 2, 40_000)
    assert c.difference == pytest.approx(0.25)
    assert (c.low, c.high) == pytest.approx((-0.5, 1.0))
    assert c.p == pytest.approx(0.5, abs=0.03)  # 2 · P(d* ≤ 0) = 2 · 1/4


def test_pairing_makes_a_constant_difference_certain() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(size=50)
    worse, same = paired_bootstrap("m", ["a", "b", "c"], np.stack([a, a - 0.01, a], axis=1), samples=999)[:2]
    assert (worse.low, worse.high) == pytest.approx((0.01, 0.01))
    assert worse.p == pytest.approx(2 / 1000)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).uniform(size=(30, 2))
    assert paired_bootstrap("m", "ab", values, 500, 7) == paired_bootstrap("m", "ab", values, 500, 7)
    assert paired_bootstrap("m", "ab", values, 500, 7) != paired_bootstrap("m", "ab", values, 500, 8)
    with pytest.raises(ValueError, match="at least one query"):
        resampled_means(np.empty((0, 2)))
