"""BM25 as sparse vectors: their products are BM25's scores."""

from __future__ import annotations

import numpy as np
import pytest

from trichrome.embeddings import Embeddings
from trichrome.encoder.tokenizer import Tokens
from trichrome.papers.pattern.impacts import best, impacts
from trichrome.scoring import score
from trichrome.search.bm25 import BM25


def text(ids: list[int]) -> Tokens:
    """With a start that is not the text's own."""
    return Tokens([0, *ids], [False, *[True] * len(ids)], 0)


def test_products_are_bm25() -> None:
    pytest.importorskip("bm25s")
    draw = np.random.default_rng(0)
    passages = [draw.integers(1, 40, draw.integers(3, 20)).tolist() for _ in range(50)]
    queries = [draw.integers(1, 45, 4).tolist() for _ in range(8)]
    of_queries, of_passages = impacts([text(q) for q in queries], [text(p) for p in passages])
    found = score("sparse", Embeddings(sparse=of_queries), Embeddings(sparse=of_passages))
    engine, ranked = BM25(passages), best(of_queries, of_passages, 10)
    for i, query in enumerate(queries):
        rows, scores = engine.search(query, 50)
        np.testing.assert_allclose(found[i][rows], scores, rtol=1e-4)
        assert (found[i] > 0).sum() == len(rows)
        assert ranked[i].tolist() == np.lexsort((np.arange(50), -found[i]))[:10].tolist()
