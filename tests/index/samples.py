"""Random small documents for the store tests, and stores to put them in."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np

from tests.search.brute import as_batch
from trichrome.embeddings import Embedding, Embeddings, MultiVector, Sparse
from trichrome.index import Place, Store, create_store
from trichrome.index.urls import is_url
from trichrome.scoring import score

DIM, TOKEN_DIM, VOCABULARY = 16, 8, 60
#: How far a store's score may lie from the score computed here.
TOLERANCE = {"exact": 1e-5, "embedded": 1e-3, "qdrant": 1e-5, "qdrant server": 1e-3, "postgres": 1e-5}
#: Kinds that compress: how a store of them is created, and how far a number of a token vector may lie off.
PACKED: dict[str, dict[str, Any]] = {
    "exact int8": {"kind": "exact", "dense_search": "int8", "multivector_dtype": "int8"},
    "exact int4": {"kind": "exact", "dense_search": "binary", "multivector_dtype": "int4"},
    "exact pq": {"kind": "exact", "dense_search": "pq"},
    "exact seismic": {"kind": "exact", "sparse_search": "seismic"},
    "embedded float32": {"kind": "embedded", "dense_search": "float32"},
}
TOKEN_TOLERANCE = {"int8": 0.005, "int4": 0.1}
TOLERANCE |= {
    "exact int8": 0.01,
    "exact int4": 0.12,
    "exact pq": 1e-5,
    "exact seismic": 1e-5,
    "embedded float32": 1e-3,
}


def make_store(place: Place, kind: str, **changes: Any) -> Store:
    """An empty store for `random_embeddings`; of a folder's store the kind says which."""
    shape = {"dense_dim": DIM, "sparse": True, "multivector_dim": TOKEN_DIM}
    fixed = {"model": "tiny", "fingerprint": "f" * 64, "kind": None if is_url(place) else kind}
    return create_store(place, **{**fixed, **shape, **PACKED.get(kind, {}), **changes})


def random_embeddings(n: int, seed: int) -> Embeddings:
    """n texts with all three outputs; unit vectors that float16 holds; a few texts without any token."""
    rng = np.random.default_rng(seed)

    def units(count: int, width: int) -> np.ndarray:
        vectors = rng.standard_normal((count, width))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    sparse, tokens = [], []
    for _ in range(n):
        ids = np.sort(rng.choice(VOCABULARY, rng.integers(0, 8), replace=False)).astype(np.int32)
        sparse.append((ids, rng.uniform(0.05, 1.0, len(ids)).astype(np.float32)))
        tokens.append(units(int(rng.integers(0, 10)), TOKEN_DIM).astype(np.float16))
    return Embeddings(units(n, DIM), Sparse.from_rows(sparse), MultiVector.from_rows(tokens, TOKEN_DIM))


def brute_scores(signal: str, query: Embedding, documents: Embeddings) -> np.ndarray:
    """[N] the scores of one query against all documents."""
    return score(signal, as_batch(query), documents)[0]


def names(n: int, start: int = 0) -> list[str]:
    return [f"d{i}" for i in range(start, start + n)]


def assert_holds(store: Store, ids: list[str], embeddings: Embeddings, payloads: list[Any]) -> None:
    """The store holds exactly these documents, every value of them."""
    assert store.count() == len(ids)
    assert dict(store.scan()) == dict(zip(ids, payloads, strict=True))
    rows = store.rows_of(ids)
    assert (rows >= 0).all()
    assert len(set(rows.tolist())) == len(ids)
    assert store.ids(rows) == ids
    assert store.payloads(rows) == payloads
    assert store.documents(rows) == list(zip(ids, payloads, strict=True))
    assert_same(store.embeddings(rows), embeddings, token_tolerance(store))


def token_tolerance(store: Store) -> float:
    """How far a number of a stored token vector may lie from what was added."""
    return TOKEN_TOLERANCE.get(store.manifest.multivector_dtype, 0.0)


def assert_same(found: Embeddings, wanted: Embeddings, token_tolerance: float = 0) -> None:
    """Equal, bit for bit; of token vectors that are packed each number nearly."""
    assert len(found) == len(wanted)
    assert found.signals == wanted.signals
    for got, want in zip(found, wanted, strict=True):
        for name in ("dense", "token_ids", "token_weights", "multivector"):
            off = token_tolerance if name == "multivector" else 0
            ours, theirs = getattr(got, name), getattr(want, name)
            assert (ours is None) == (theirs is None), name
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=off, err_msg=name)


def processes() -> BaseContext:
    """Processes that start in milliseconds: forked from one that has only imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.index.children"])
    return context
