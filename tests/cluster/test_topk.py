"""The best of many shards are the best of all, whatever the cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichrome.cluster.topk import Best, best_dense, best_of, best_sparse, merge
from trichrome.embeddings import Embeddings, Sparse


def brute(scores: np.ndarray, k: int, floor: float = -np.inf) -> list[list[int]]:
    """The rows of the k best of each query, best first, equal scores by row."""
    rows = np.arange(scores.shape[1])
    return [[int(i) for i in np.lexsort((rows, -s))[:k] if s[i] > floor] for s in scores]


def vectors(rng: np.random.Generator, n: int, coarse: bool) -> np.ndarray:
    """Unit vectors in float16; coarse ones tie often."""
    made = rng.integers(-1, 2, (n, 8)).astype(np.float32) if coarse else rng.standard_normal((n, 8))
    return (made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)).astype(np.float16)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6), n=st.integers(0, 60), queries=st.integers(1, 5), k=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 60), max_size=4), coarse=st.booleans(),
)  # fmt: skip
def test_dense(seed: int, n: int, queries: int, k: int, cuts: list[int], coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    asked, stored = vectors(rng, queries, coarse).astype(np.float32), vectors(rng, n, coarse)
    exact = (asked.astype(np.float64) @ stored.astype(np.float64).T).astype(np.float32)
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    parts = [(np.arange(a, b), stored[a:b]) for a, b in pairwise(edges)]
    shards = merge([best_dense(asked, [part], k) for part in parts], k)
    stream = best_dense(asked, parts, k)
    for found in (shards, stream):
        assert [rows.tolist() for rows in found.lists(queries)] == brute(exact, k)
    np.testing.assert_array_equal(shards.scores, stream.scores)


def test_a_tie_at_the_end_of_the_list_goes_to_the_lower_row() -> None:
    same = np.ones((50, 3), np.float16)
    found = best_dense(np.ones((2, 3), np.float32), [(np.arange(10, 60), same)], 4)
    assert [rows.tolist() for rows in found.lists(2)] == [[10, 11, 12, 13]] * 2


@pytest.mark.parametrize("edges", [(0, 40), (0, 7, 8, 40), (0, 20, 20, 40)])
def test_sparse(edges: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)

    def rows(n: int) -> Sparse:
        made = []
        for _ in range(n):
            ids = np.unique(rng.integers(0, 30, rng.integers(0, 8))).astype(np.int32)
            made.append((ids, rng.random(len(ids)).astype(np.float32) + 0.1))
        return Sparse.from_rows(made)

    queries, stored = rows(6), rows(40)
    table = np.zeros((2, 40, 30))
    for side, sparse in enumerate((queries, stored)):
        for i in range(len(sparse)):
            ids, weights = sparse.row(i)
            table[side, i, ids] = weights
    wanted = brute((table[0, :6] @ table[1].T).astype(np.float32), 9, floor=0)
    whole = Embeddings(sparse=stored)
    parts = [(np.arange(a, b), whole[a:b]) for a, b in pairwise(edges)]
    asked = Embeddings(sparse=queries)
    shards = merge([best_of("sparse", asked, [part], 9) for part in parts], 9)
    stream = best_of("sparse", asked, parts, 9)
    one = best_sparse(queries, np.arange(40), stored, 9)
    for found in (shards, stream, one):
        assert [rows.tolist() for rows in found.lists(6)] == wanted
        np.testing.assert_array_equal(found.scores, one.scores)


def test_queries_without_a_passage_have_empty_lists() -> None:
    found = Best(np.array([1, 1, 3]), np.array([7, 2, 9]), np.array([3, 2, 1], np.float32))
    assert [rows.tolist() for rows in found.lists(5)] == [[], [7, 2], [], [9], []]
    assert [rows.tolist() for rows in merge([], 3).lists(2)] == [[], []]
