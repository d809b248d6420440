"""BM25 as sparse vectors: a query's product with a passage's is the score. For small rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Sparse
from trichrome.encoder.tokenizer import Tokens
from trichrome.index.sparse_kernel import accumulate, build_postings, top_k
from trichrome.search.bm25 import K1, B


def impacts(queries: Sequence[Tokens], passages: Sequence[Tokens]) -> tuple[Sparse, Sparse]:
    """Q queries and N passages as vectors over token ids.

    A token weighs its frequency in a query, and in a passage ln(1 + (N − n + ½)/(n + ½)) · f / (f + k1·(1 − b
    + b·l/l̄)), as in `search.bm25`.
    """
    counts = [_counts(text) for text in passages]
    holding = Counter(token for count in counts for token in count)
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / max(1, len(lengths))

    def weight(token: int, times: int, length: int) -> float:
        n = holding[token]
        rarity = np.log1p((len(counts) - n + 0.5) / (n + 0.5))
        return float(rarity * times / (times + K1 * (1 - B + B * length / mean)))

    made = [
        {token: weight(token, times, length) for token, times in count.items()}
        for count, length in zip(counts, lengths, strict=True)
    ]
    return _rows([_counts(text) for text in queries]), _rows(made)


def best(queries: Sparse, passages: Sparse, k: int) -> NDArray[np.int64]:
    """The k passages of the largest product with each query, best first, equal ones by row: [Q, k]."""
    k = min(k, len(passages))
    postings = build_postings(passages)
    every = np.ones(len(passages), np.bool_)
    found = np.empty((len(queries), k), np.int64)
    for i in range(len(queries)):
        scores = np.zeros(len(passages), np.float32)
        accumulate(*queries.row(i), *postings.values(), scores)
        found[i] = top_k(scores, every, k)
    return found


def _counts(text: Tokens) -> dict[int, int]:
    """A text's own tokens."""
    return Counter(i for i, counts in zip(text.ids, text.scored, strict=True) if counts)


def _rows(weights: Sequence[dict[int, int]] | Sequence[dict[int, float]]) -> Sparse:
    rows = []
    for of in weights:
        ids = sorted(of)
        rows.append((np.array(ids, np.int32), np.array([of[i] for i in ids], np.float32)))
    return Sparse.from_rows(rows)
