"""Exact sparse search: term-at-a-time accumulation over postings, and exact top-k. Compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array

from trichrome.embeddings import Sparse

Array = NDArray[Any]

_MARKS = 4096
#: Ids of a text that `_marked` looks at together.
_AT_ONCE = 8


def build_postings(sparse: Sparse) -> dict[str, Array]:
    """Sparse rows [N] → the inverted index of them.

    terms: [m] int32 token ids that occur, ascending. starts: [m+1] int64. texts: [nnz] int32, the texts
    that hold terms[t] are texts[starts[t]:starts[t+1]], ascending. weights: [nnz] float32, their weights.
    """
    token_ids = np.asarray(sparse.ids)
    terms, column = np.unique(token_ids, return_inverse=True)
    rows = csr_array(
        (np.asarray(sparse.weights), column, np.asarray(sparse.indptr)), shape=(len(sparse), len(terms))
    )
    columns = rows.tocsc()
    return {
        "terms": terms.astype(np.int32),
        "starts": columns.indptr.astype(np.int64),
        "texts": columns.indices.astype(np.int32),
        "weights": columns.data.astype(np.float32),
    }


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def accumulate(
    query_ids: Array,
    query_weights: Array,
    terms: Array,
    starts: Array,
    texts: Array,
    weights: Array,
    out: Array,
) -> None:
    """Add to out [N] the scores of all texts against a query of token ids and weights."""
    for i in range(len(query_ids)):
        t = np.searchsorted(terms, query_ids[i])
        if t == len(terms) or terms[t] != query_ids[i]:
            continue
        weight = query_weights[i]
        for p in range(starts[t], starts[t + 1]):
            out[texts[p]] += weight * weights[p]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pair_scores(
    query_ids: Array, query_weights: Array, indptr: Array, ids: Array, weights: Array, texts: Array
) -> Array:
    """[n] scores of the texts [n]; query_ids ascend, as the ids of every text do."""
    out, marks = np.empty(len(texts), np.float32), marks_of(query_ids)
    for i in range(len(texts)):
        begin, end = indptr[texts[i]], indptr[texts[i] + 1]
        out[i] = score_one(query_ids, query_weights, marks, ids, weights, begin, end)
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def marks_of(query_ids: Array) -> Array:
    """[4096] 1 at the last twelve bits of a query's token ids, else 0: one look tells most tokens of a text
    from those of the query, and the processor foresees what it says."""
    marks = np.zeros(_MARKS, np.uint8)
    for id in query_ids:
        marks[np.uint32(id) & np.uint32(_MARKS - 1)] = 1
    return marks


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def score_one(
    query_ids: Array, query_weights: Array, marks: Array, ids: Array, weights: Array, begin: int, end: int
) -> Any:
    """The score of the text that holds ids[begin:end]; the parts are added in the order of the ids, as
    `accumulate` adds them. marks: of the query, by `marks_of`."""
    total = np.float32(0.0)
    q, p, stop = 0, np.uint64(begin), np.uint64(end)  # unsigned: no look at whether they count from the end
    while p < stop:
        after = min(stop, p + np.uint64(_AT_ONCE))
        if after - p == np.uint64(_AT_ONCE) and not _marked(marks, ids, p):
            p = after
        while p < after:
            if marks[np.uint32(ids[p]) & np.uint32(_MARKS - 1)]:
                while q < len(query_ids) and query_ids[q] < ids[p]:
                    q += 1
                if q == len(query_ids):
                    return total
                if query_ids[q] == ids[p]:
                    total += query_weights[q] * weights[p]
            p += np.uint64(1)
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _marked(marks: Array, ids: Array, p: Any) -> Any:
    """Whether any of eight ids from p on is marked: one question, mostly answered no, instead of eight."""
    low = np.uint32(_MARKS - 1)
    return (
        marks[np.uint32(ids[p]) & low]
        | marks[np.uint32(ids[p + np.uint64(1)]) & low]
        | marks[np.uint32(ids[p + np.uint64(2)]) & low]
        | marks[np.uint32(ids[p + np.uint64(3)]) & low]
        | marks[np.uint32(ids[p + np.uint64(4)]) & low]
        | marks[np.uint32(ids[p + np.uint64(5)]) & low]
        | marks[np.uint32(ids[p + np.uint64(6)]) & low]
        | marks[np.uint32(ids[p + np.uint64(7)]) & low]
    )


def top_k(scores: Array, allowed: Array, k: int, floor: float = -np.inf) -> Array:
    """[≤ k] positions of the best scores > floor among the allowed, best first, equal scores by position.

    scores: [N] float32. allowed: [N] bool.
    """
    best: Array = _select(scores, allowed, max(0, min(k, len(scores))), floor)
    order: Array = np.lexsort((best, -scores[best]))
    ranked: Array = best[order]
    return ranked


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _worse(scores: Array, a: int, b: int) -> bool:
    return bool(scores[a] < scores[b] or (scores[a] == scores[b] and a > b))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _select(scores: Array, allowed: Array, k: int, floor: float) -> Array:
    """The positions of top_k in no order: one pass with a heap whose root is the worst position kept."""
    heap = np.empty(k, np.int64)
    size = 0
    for i in range(len(scores)):
        if not allowed[i] or not scores[i] > floor:
            continue
        if size < k:  # sift up
            child = size
            size += 1
            while child > 0 and _worse(scores, i, heap[(child - 1) // 2]):
                heap[child] = heap[(child - 1) // 2]
                child = (child - 1) // 2
            heap[child] = i
        elif k > 0 and scores[i] > scores[heap[0]]:  # an equal score comes later, so it loses; sift down
            parent = 0
            while 2 * parent + 1 < size:
                child = 2 * parent + 1
                if child + 1 < size and _worse(scores, heap[child + 1], heap[child]):
                    child += 1
                if not _worse(scores, heap[child], i):
                    break
                heap[parent] = heap[child]
                parent = child
            heap[parent] = i
    return heap[:size]
