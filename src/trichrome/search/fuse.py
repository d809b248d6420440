"""From several scores of a document to one: the weighted sum, and reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import SIGNALS
from trichrome.scoring import weighted

Fusion: TypeAlias = Literal["weighted", "rrf"]
Scores: TypeAlias = "Mapping[str, NDArray[np.float32]]"

#: The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
RRF_K = 60


def weighted_sum(scores: Scores, weights: Sequence[float]) -> NDArray[np.float32]:
    """[n] w_dense·dense + w_sparse·sparse + w_multivector·multivector; signals of weight 0 are left out."""
    used = {name: scores[name] for name, weight in zip(SIGNALS, weights, strict=True) if weight}
    return np.asarray(weighted(used, weights), dtype=np.float32)


def reciprocal_rank_fusion(scores: Scores, weights: Sequence[float], k: int = RRF_K) -> NDArray[np.float32]:
    """[n] Σ over the signals of non-zero weight of 1 / (k + rank); rank counts from 1.

    Ranks are taken over the computed scores of all candidates, and equal scores share the better rank, so
    the result doesn't depend on the candidates' order. A document that shares no token with the query
    (sparse score 0) is in no sparse ranking and gains nothing from it.
    """
    used = [name for name, weight in zip(SIGNALS, weights, strict=True) if weight]
    if not used:
        raise ValueError("reciprocal rank fusion needs at least one signal")
    total = np.zeros(len(scores[used[0]]), dtype=np.float64)
    for name in used:
        gain = 1.0 / (k + competition_ranks(scores[name]))
        total += np.where(scores[name] > 0, gain, 0.0) if name == "sparse" else gain
    return total.astype(np.float32)


def competition_ranks(scores: NDArray[Any]) -> NDArray[np.int64]:
    """[n] 1 + the number of strictly larger scores."""
    ascending = np.sort(scores)
    return 1 + len(scores) - np.searchsorted(ascending, scores, side="right").astype(np.int64)


def best(scores: NDArray[Any], keys: NDArray[Any], k: int) -> NDArray[np.int64]:
    """[min(k, n)] positions of the largest scores, best first; equal scores are ordered by ascending key."""
    if k < len(scores):
        limit = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= limit)  # more than k where scores tie at the limit
    else:
        kept = np.arange(len(scores))
    return kept[np.lexsort((keys[kept], -scores[kept]))][:k].astype(np.int64)
