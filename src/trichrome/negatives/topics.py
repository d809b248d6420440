"""Topics: clusters of queries, for negatives out of the same topic (TAS-B, arXiv 2104.06967)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def topics(vectors: NDArray[np.float32], size: int, seed: int, rounds: int = 10) -> NDArray[np.int64]:
    """[N] the cluster of each unit vector [N, D], by spherical k-means into about N / size clusters.

    Products are made 4,096 vectors at a time.
    """
    count = max(1, round(len(vectors) / size))
    if count == 1:
        return np.zeros(len(vectors), np.int64)
    draw = np.random.default_rng(seed)
    centres = vectors[draw.choice(len(vectors), count, replace=False)].copy()  # [K, D]
    labels = np.zeros(len(vectors), np.int64)
    for _ in range(rounds):
        before = labels
        blocks = [vectors[i : i + 4096] @ centres.T for i in range(0, len(vectors), 4096)]
        labels = np.concatenate([block.argmax(axis=1) for block in blocks]).astype(np.int64)
        if (labels == before).all():
            break
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-9), centres)  # an empty one stays
    return labels
