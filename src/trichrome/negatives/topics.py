"""Topics: clusters of queries, for negatives and batches out of one topic (TAS-B, arXiv 2104.06967)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def topics(vectors: Vectors, size: int, seed: int, rounds: int = 10) -> NDArray[np.int64]:
    """[N] the cluster of each unit vector [N, D], by spherical k-means into about N / size clusters."""
    count = max(1, round(len(vectors) / size))
    if count == 1:
        return np.zeros(len(vectors), np.int64)
    return nearest_centre(vectors, centres(vectors, count, seed, rounds))


def centres(vectors: Vectors, count: int, seed: int, rounds: int = 10) -> Vectors:
    """[K, D] unit centres of so many clusters of unit vectors [N, D], K ≤ N: after `rounds` of spherical
    k-means, or when no vector changes its cluster any more."""
    draw = np.random.default_rng(seed)
    found = vectors[draw.choice(len(vectors), count, replace=False)].copy()
    labels = np.zeros(len(vectors), np.int64)
    for step in range(rounds):
        before, labels = labels, nearest_centre(vectors, found)
        if (labels == before).all() or step == rounds - 1:
            break
        sums = np.zeros_like(found)
        np.add.at(sums, labels, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        found = np.where(lengths > 0, sums / np.maximum(lengths, 1e-9), found)  # an empty one stays
    return found


def nearest_centre(vectors: Vectors, found: Vectors) -> NDArray[np.int64]:
    """[N] the centre [K, D] with the largest product; products are made 4,096 vectors at a time."""
    blocks = (vectors[i : i + 4096] @ found.T for i in range(0, len(vectors), 4096))
    return np.concatenate([np.empty(0, np.int64), *(block.argmax(axis=1) for block in blocks)])
