"""The weighted sum and reciprocal rank fusion against numbers worked out by hand."""

import numpy as np
import pytest

from trichrome.search.fuse import best, competition_ranks, reciprocal_rank_fusion, weighted_sum

SCORES = {
    "dense": np.array([0.9, 0.5, 0.1], np.float32),
    "sparse": np.array([0.0, 2.0, 1.0], np.float32),
    "multivector": np.array([0.2, 0.2, 0.8], np.float32),
}


def test_weighted_sum_by_hand() -> None:
    assert weighted_sum(SCORES, (1, 0.3, 1)) == pytest.approx([1.1, 1.3, 1.2])
    assert weighted_sum(SCORES, (1, 0.3, 0)) == pytest.approx([0.9, 1.1, 0.4])


def test_a_signal_that_weighs_nothing_may_be_unknown() -> None:
    scores = SCORES | {"multivector": np.full(3, np.nan, np.float32)}
    assert weighted_sum(scores, (1, 0.3, 0)) == pytest.approx([0.9, 1.1, 0.4])
    assert not np.isnan(reciprocal_rank_fusion(scores, (1, 1, 0))).any()


def test_reciprocal_rank_fusion_by_hand() -> None:
    # dense ranks 1 2 3; sparse: unlisted, 1, 2; multivector: 2 2 1 counted as 2 2 → equal scores share rank 2
    expected = [1 / 61 + 1 / 62, 1 / 62 + 1 / 61 + 1 / 62, 1 / 63 + 1 / 62 + 1 / 61]
    assert reciprocal_rank_fusion(SCORES, (1, 0.3, 1)) == pytest.approx(expected, rel=1e-6)
    assert reciprocal_rank_fusion(SCORES, (1, 0, 0), k=0) == pytest.approx([1, 1 / 2, 1 / 3])


def test_competition_ranks() -> None:
    assert competition_ranks(np.array([5.0, 7.0, 5.0, 1.0])).tolist() == [2, 1, 2, 4]


def test_best_breaks_ties_by_key_whatever_the_order() -> None:
    scores = np.array([1.0, 3.0, 1.0, 3.0, 1.0])
    keys = np.array([9, 8, 1, 2, 5])
    assert best(scores, keys, 4).tolist() == [3, 1, 2, 4]
    assert best(scores, keys, 99).tolist() == [3, 1, 2, 4, 0]
    shuffle = np.random.default_rng(0).permutation(5)
    assert keys[shuffle][best(scores[shuffle], keys[shuffle], 4)].tolist() == [2, 8, 1, 5]
