"""Pseudo-relevance feedback: a first search, its best documents taken for an answer, and a better query.

    Searcher(encoder, store).search("…", feedback=Feedback(Rocchio(), documents=5))

Rankings go in and rankings come out: the revised query is put to the same store in the same mode. What makes
it is a `Reviser`: `Rocchio`, which needs no training, or a trained one (`revisers.LearnedReviser`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import TrichromeError
from trichrome.index.store import Filter, Store
from trichrome.search.fuse import Fusion
from trichrome.search.modes import Mode
from trichrome.search.retrieve import rank, retrieve

Ids: TypeAlias = NDArray[np.int32]
Weights: TypeAlias = NDArray[np.float32]

#: Tokens that a revised sparse query keeps, the heaviest: posting lists to read.
MOST_TOKENS = 256


class Reviser(Protocol):
    """What makes a query better. name: says what it is, so that two of one name do the same."""

    @property
    def name(self) -> str: ...

    def revise(self, query: Embedding, documents: Embeddings) -> Embedding:
        """The query in the light of its feedback documents, best first; with none, the query itself."""


@dataclass(frozen=True)
class Rocchio:
    """q' = query · q + documents · mean of the documents' vectors, dense and sparse; dense at unit length.

    (Rocchio 1971; for dense vectors Li et al., arXiv 2108.11044.) Sparse vectors are brought to length 1
    before and to the query's afterwards. query, documents: weights ≥ 0.
    """

    query: float = 1.0
    documents: float = 0.5

    def __post_init__(self) -> None:
        if min(self.query, self.documents) < 0 or not self.query + self.documents > 0:
            raise TrichromeError(
                f"feedback weights must be ≥ 0, not both 0: got {self.query}, {self.documents}"
            )

    @property
    def name(self) -> str:
        return f"rocchio {self.query:g} {self.documents:g}"

    def revise(self, query: Embedding, documents: Embeddings) -> Embedding:
        """As `Reviser` says; token vectors stay as they are."""
        dense, ids, weights = query.dense, query.token_ids, query.token_weights
        if dense is not None and documents.dense is not None and len(documents.dense):
            mean = np.asarray(documents.dense, np.float32).mean(0)
            dense = _unit(self.query * np.asarray(dense, np.float32) + self.documents * mean)
        if ids is not None and documents.sparse is not None and len(documents.sparse):
            columns, q, d = align(query, documents)
            mean = np.stack([_unit(row) for row in d]).mean(0)
            length = float(np.linalg.norm(q)) or 1.0
            ids, weights = heaviest(columns, length * (self.query * _unit(q) + self.documents * mean))
        return Embedding(dense, ids, weights, query.multivector)


@dataclass(frozen=True)
class Feedback:
    """How a search is done twice. documents: how many of the first search's best are read."""

    reviser: Reviser
    documents: int = 5

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise TrichromeError(f"feedback needs at least one document, got {self.documents}")

    @property
    def name(self) -> str:
        """Says what is done."""
        return f"{self.documents} documents, {self.reviser.name}"

    def revised(
        self,
        store: Store,
        query: Embedding,
        mode: Mode,
        where: Filter | None = None,
        fusion: Fusion = "weighted",
    ) -> Embedding:
        """The query, revised by the documents that a mode ranks best; where it finds none, the query."""
        mode = replace(mode, depth=max(self.documents, mode.depth))
        best = rank(retrieve(store, query, [mode], where), mode, self.documents, fusion)
        if not len(best.rows):
            return query
        return self.reviser.revise(query, store.embeddings(best.rows))


def align(query: Embedding, documents: Embeddings) -> tuple[Ids, Weights, Weights]:
    """The tokens of a query and its documents: ids [T] ascending, weights in the query [T] and in each
    document [k, T], 0 where it has none."""
    assert query.token_ids is not None
    assert query.token_weights is not None
    assert documents.sparse is not None
    sparse = documents.sparse
    ids = np.unique(np.concatenate([query.token_ids, sparse.ids])).astype(np.int32)
    of_query = np.zeros(len(ids), np.float32)
    of_query[np.searchsorted(ids, query.token_ids)] = query.token_weights
    of_documents = np.zeros((len(sparse), len(ids)), np.float32)
    owner = np.repeat(np.arange(len(sparse)), np.diff(sparse.indptr))
    of_documents[owner, np.searchsorted(ids, sparse.ids)] = sparse.weights
    return ids, of_query, of_documents


def heaviest(ids: Ids, weights: Weights, most: int = MOST_TOKENS) -> tuple[Ids, Weights]:
    """The `most` heaviest tokens of positive weight, by id: ids and weights, equal weights by id."""
    kept = np.flatnonzero(weights > 0)
    kept = np.sort(kept[np.argsort(-weights[kept], kind="stable")][:most])
    return ids[kept].astype(np.int32), weights[kept].astype(np.float32)


def _unit(x: Weights) -> Weights:
    return x / np.float32(max(float(np.linalg.norm(x)), 1e-12))
