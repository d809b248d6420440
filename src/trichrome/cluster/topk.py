"""The best passages of one shard for many queries, and of many shards: the same whatever the cut.

Dense scores are inner products that are computed twice: in float32 for all passages, to find those that can
be among the best, and in float64 for these. Rounded to float32 they depend neither on where the shard ends
nor on how many queries are asked together, as a matrix product's last bits do. Sparse scores are added up in
the order of the query's token ids, which no cut changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embeddings, Sparse
from trichrome.index.sparse_kernel import accumulate, build_postings, top_k

#: Scores computed at a time: 64 MiB of them.
_BLOCK = 1 << 24
#: Passages compared with all queries at a time.
_ROWS = 1 << 14
#: Numbers gathered at a time for the second computation.
_PAIRS = 1 << 22


@dataclass(frozen=True)
class Best:
    """Lists of Q queries, one after another; each best first, equal scores by row.

    queries: [n] whose, ascending. rows: [n]. scores: [n] float32.
    """

    queries: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def lists(self, count: int) -> list[NDArray[np.int64]]:
        """The rows of each of `count` queries."""
        return np.split(self.rows, np.searchsorted(self.queries, np.arange(1, count)))


def nothing() -> Best:
    """No query has a passage."""
    return Best(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def merge(parts: Iterable[Best], k: int) -> Best:
    """The k best of each query out of several lists of it. A row comes in one part only."""
    all_parts = list(parts)
    queries = np.concatenate([p.queries for p in all_parts] or [nothing().queries])
    rows = np.concatenate([p.rows for p in all_parts] or [nothing().rows])
    scores = np.concatenate([p.scores for p in all_parts] or [nothing().scores])
    order = np.lexsort((rows, -scores, queries))
    queries = queries[order]
    first = np.searchsorted(queries, queries)  # [n] where the query's list begins
    kept = order[np.arange(len(order)) - first < k]
    return Best(queries[np.arange(len(order)) - first < k], rows[kept], scores[kept])


def best_dense(
    queries: NDArray[np.float32], chunks: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]], k: int
) -> Best:
    """The k best passages of each query [Q, D] out of chunks of (rows [n], vectors [n, D])."""
    found = nothing()
    lengths = np.linalg.norm(queries, axis=1)  # [Q]
    for rows, stored in chunks:
        vectors = np.asarray(stored, np.float32)
        if not len(rows):
            continue
        # by how much a float32 product of this many terms may be wrong, twice, for both are: γ = D·2⁻²⁴
        wrong = 2 * queries.shape[1] * 2.0**-24 * float(np.linalg.norm(vectors, axis=1).max(initial=0))
        floor = _floor(found, len(queries), k)
        new = [found]
        step = max(1, _BLOCK // len(rows))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            scores = queries[part] @ vectors.T  # [b, n]
            limit = floor[part]
            if len(rows) > k:
                of_chunk = np.partition(scores, len(rows) - k, axis=1)[:, len(rows) - k]
                limit = np.maximum(limit, of_chunk)
            q, at = np.nonzero(scores >= (limit - wrong * lengths[part])[:, None])
            q += start
            new.append(Best(q, rows[at], _exact(queries, q, vectors, at)))
        found = merge(new, k)
    return found


def _floor(found: Best, count: int, k: int) -> NDArray[np.float64]:
    """[Q] the k-th best score so far, -inf where there are fewer."""
    floor = np.full(count, -np.inf)
    if len(found.queries) >= k:
        rank = np.arange(len(found.queries)) - np.searchsorted(found.queries, found.queries)
        last = rank == k - 1
        floor[found.queries[last]] = found.scores[last]
    return floor


def _exact(
    queries: NDArray[np.float32], q: NDArray[np.int64], vectors: NDArray[np.float32], at: NDArray[np.int64]
) -> NDArray[np.float32]:
    """[n] products of queries q [n] with vectors at [n], correct to the last bit of float32 but for ties."""
    scores = np.empty(len(q), np.float32)
    step = max(1, _PAIRS // queries.shape[1])
    for start in range(0, len(q), step):
        part = slice(start, start + step)
        a, b = queries[q[part]].astype(np.float64), vectors[at[part]].astype(np.float64)
        scores[part] = (a * b).sum(axis=1)
    return scores


def best_sparse(queries: Sparse, rows: NDArray[np.int64], passages: Sparse, k: int) -> Best:
    """The k best passages of each query that share a token with it. rows: [n] of the passages, ascending."""
    postings = build_postings(passages)
    names = ("terms", "starts", "texts", "weights")
    terms, starts, texts, weights = (postings[name] for name in names)
    allowed = np.ones(len(rows), np.bool_)
    found = [nothing()]
    for i in range(len(queries)):
        scores = np.zeros(len(rows), np.float32)
        ids, of_query = queries.row(i)
        accumulate(
            np.asarray(ids, np.int32), np.asarray(of_query, np.float32), terms, starts, texts, weights, scores
        )
        best = top_k(scores, allowed, k, floor=0.0)
        found.append(Best(np.full(len(best), i, np.int64), rows[best], scores[best]))
    return Best(
        np.concatenate([b.queries for b in found]),
        np.concatenate([b.rows for b in found]),
        np.concatenate([b.scores for b in found]),
    )


def best_of(
    signal: str,
    queries: Embeddings,
    chunks: Iterable[tuple[NDArray[np.int64], Embeddings]],
    k: int,
) -> Best:
    """The k best by the dense or the sparse score out of chunks of (rows [n], their outputs)."""
    grouped = _grouped(chunks)
    if signal == "dense":
        assert queries.dense is not None
        asked = np.ascontiguousarray(queries.dense, np.float32)
        return best_dense(asked, ((r, e.dense) for r, e in grouped if e.dense is not None), k)
    assert queries.sparse is not None
    parts = [best_sparse(queries.sparse, r, e.sparse, k) for r, e in grouped if e.sparse is not None]
    return merge(parts, k)


def _grouped(
    chunks: Iterable[tuple[NDArray[np.int64], Embeddings]],
) -> Iterator[tuple[NDArray[np.int64], Embeddings]]:
    """Chunks joined to _ROWS passages or more: to sort what was found costs the same for few and for many."""
    rows: list[NDArray[np.int64]] = []
    made: list[Embeddings] = []
    for some, embeddings in chunks:
        rows.append(some)
        made.append(embeddings)
        if sum(map(len, rows)) >= _ROWS:
            yield np.concatenate(rows), Embeddings.concatenate(made)
            rows, made = [], []
    if rows:
        yield np.concatenate(rows), Embeddings.concatenate(made)
