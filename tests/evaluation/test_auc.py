"""The area under the curve, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichrome.evaluation.auc import auc

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


@given(SCORES, SCORES)
def test_it_is_the_share_of_pairs_in_order(positives: list[int], negatives: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert auc(np.array(positives), np.array(negatives)) == pytest.approx(sum(pairs) / len(pairs))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="AUC"):
        auc(np.array([]), np.array([1.0]))
