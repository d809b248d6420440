"""A random small corpus, and a store that looks at every document: slow, short, plainly right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trichrome.embeddings import Embedding, Embeddings, MultiVector, Sparse
from trichrome.index import Candidates, Filter, Manifest, Store, create_store
from trichrome.records import Payload
from trichrome.scoring import score


def random_embeddings(n: int, seed: int, dim: int = 16, vocabulary: int = 60) -> Embeddings:
    """n texts with all three outputs; float32, unit vectors, 1 to 12 tokens each."""
    rng = np.random.default_rng(seed)

    def units(count: int, width: int) -> np.ndarray:
        vectors = rng.standard_normal((count, width)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    sparse = []
    for _ in range(n):
        ids = np.sort(rng.choice(vocabulary, rng.integers(1, 8), replace=False)).astype(np.int32)
        sparse.append((ids, rng.uniform(0.05, 1.0, len(ids)).astype(np.float32)))
    tokens = [units(int(rng.integers(1, 13)), 8) for _ in range(n)]
    return Embeddings(units(n, dim), Sparse.from_rows(sparse), MultiVector.from_rows(tokens))


def as_batch(query: Embedding) -> Embeddings:
    """One text's outputs as a batch of one."""
    return Embeddings(
        dense=None if query.dense is None else query.dense[None],
        sparse=None
        if query.token_ids is None
        else Sparse.from_rows([(query.token_ids, query.token_weights)]),
        multivector=None if query.multivector is None else MultiVector.from_rows([query.multivector]),
    )


class BruteStore:
    """The Store protocol over Embeddings in memory, by scoring.score over the whole corpus."""

    def __init__(
        self, embeddings: Embeddings, payloads: Sequence[Payload], fingerprint: str = "f" * 64
    ) -> None:
        self.all = embeddings
        self.all_payloads = list(payloads)
        self.all_ids = [f"d{i}" for i in range(len(embeddings))]
        self.computed: dict[str, int] = {}
        dense, multi = embeddings.dense, embeddings.multivector
        self.manifest = Manifest(
            kind="brute",
            model="tiny",
            fingerprint=fingerprint,
            dense_dim=None if dense is None else dense.shape[1],
            sparse=embeddings.sparse is not None,
            multivector_dim=None if multi is None else multi.vectors.shape[1],
        )

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        raise NotImplementedError

    def delete(self, ids: Sequence[str]) -> int:
        raise NotImplementedError

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([self.all_ids.index(i) if i in self.all_ids else -1 for i in ids], np.int64)

    def ids(self, rows: np.ndarray) -> list[str]:
        return [self.all_ids[i] for i in rows]

    def payloads(self, rows: np.ndarray, fields: Sequence[str] | None = None) -> list[Payload]:
        return [self.all_payloads[i] for i in rows]

    def documents(self, rows: np.ndarray) -> list[tuple[str, Payload]]:
        return list(zip(self.ids(rows), self.payloads(rows), strict=True))

    def embeddings(self, rows: np.ndarray) -> Embeddings:
        return self.all[rows]

    def count(self, where: Filter | None = None) -> int:
        return len(self._passing(where))

    def scan(
        self, where: Filter | None = None, fields: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Payload]]:
        return ((self.all_ids[i], self.all_payloads[i]) for i in self._passing(where))

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        rows = self._passing(where)
        scores = score(signal, as_batch(query), self.all[rows])[0]
        if signal == "sparse":
            rows, scores = rows[scores > 0], scores[scores > 0]
        order = np.lexsort((rows, -scores))[:k]
        return Candidates(rows[order], scores[order])

    def scores(self, signal: str, query: Embedding, rows: np.ndarray) -> np.ndarray:
        self.computed[signal] = self.computed.get(signal, 0) + len(rows)
        return score(signal, as_batch(query), self.all[rows])[0]

    def scores_of(self, query: Embedding, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {signal: self.scores(signal, query, of_signal) for signal, of_signal in rows.items()}

    def optimize(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> BruteStore:
        return self

    def __exit__(self, *error: Any) -> None: ...

    def _passing(self, where: Filter | None) -> np.ndarray:
        passing = [
            all(p.get(key) == value for key, value in (where or {}).items()) for p in self.all_payloads
        ]
        return np.flatnonzero(passing).astype(np.int64)


@dataclass(frozen=True)
class Corpus:
    """Documents d0 … dN-1 (every third one Swahili) and queries, encoded at random."""

    documents: Embeddings
    queries: Embeddings
    payloads: list[Payload]

    def store(self, *signals: str) -> BruteStore:
        """A store of these documents with only these signals (all by default)."""
        documents = self.documents.select(*signals) if signals else self.documents
        return BruteStore(documents, self.payloads)

    def exact_store(self, path: Path) -> Store:
        """The same documents in the real exact store, at full precision."""
        store = create_store(
            path,
            kind="exact",
            model="tiny",
            fingerprint="f" * 64,
            dense_dim=16,
            sparse=True,
            multivector_dim=8,
            multivector_dtype="float32",
        )
        store.add([f"d{i}" for i in range(len(self.payloads))], self.documents, self.payloads)
        return store
