"""Random sparse rows with the frequencies of words."""

from __future__ import annotations

import numpy as np

from trichrome.embeddings import Sparse

TOKENS = 400


def rows_of(n: int, seed: int, longest: int = 25, coarse: bool = False) -> Sparse:
    """Rows in which few tokens are frequent, as in text; coarse: of four weights, so that scores are often
    equal."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(3, TOKENS + 3)
    rows = []
    for _ in range(n):
        ids = rng.choice(TOKENS, rng.integers(0, longest), replace=False, p=share / share.sum())
        weights = rng.integers(1, 5, len(ids)) / 4 if coarse else rng.lognormal(0, 1, len(ids))
        rows.append((np.sort(7 * ids + 11), weights.astype(np.float32)))
    return Sparse.from_rows(rows)
