"""Two teachers of a row's training: the built-in model's scores together, and its multi-vector score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trichrome import scoring
from trichrome.embeddings import SIGNALS, Embeddings
from trichrome.papers.pattern.collection import Collection
from trichrome.papers.pattern.encodings import encoded
from trichrome.papers.pattern.paper import Setting
from trichrome.papers.pattern.training import Rows, Teacher

#: Tokens of a query and a passage that they read.
QUERY, PASSAGE = 32, 64
#: What their scores are multiplied by: the model was trained at a temperature of 0.02.
SCALE = 50.0


@dataclass(frozen=True)
class Teachers:
    """queries: Q training queries. passages: P, the answers of any of them. place [N]: a row of the
    collection → among the P, or −1. Scores are computed when they are asked for, of what a step holds."""

    queries: Embeddings
    passages: Embeddings
    place: NDArray[np.int64]

    @classmethod
    def of(cls, setting: Setting, collection: Collection) -> Teachers:
        """The built-in model: all its three scores together for pairs, the multi-vector one for batches."""
        rows = np.unique(np.concatenate(collection.train.answers))
        texts = [collection.passages[i] for i in rows]
        q = encoded(collection.train.texts, "query", QUERY, SIGNALS, setting.tell)
        p = encoded(texts, "passage", PASSAGE, SIGNALS, setting.tell)
        place = np.full(len(collection.passages), -1)
        place[rows] = np.arange(len(rows))
        return cls(q, p, place)

    def pair(self, queries: Rows, passages: Rows) -> NDArray[np.float32]:
        """[B] queries, [C] passages → [B, C] by the teacher of pairs."""
        q, p = self.queries[queries], self.passages[self.place[passages]]
        scores = {name: _matrix(name, q, p) for name in q.signals}
        return np.float32(SCALE) * scoring.weighted(scores, normalise=True)

    def batch(self, queries: Rows, passages: Rows) -> NDArray[np.float32]:
        """The same by the teacher of batches."""
        q, p = self.queries[queries], self.passages[self.place[passages]]
        return np.float32(SCALE) * _matrix("multivector", q, p)

    def both(self) -> Sequence[Teacher]:
        """For a step's B answers and B negatives: the first knows a query's own two passages, the second its
        answer and what belongs to others."""

        def pairs(queries: Rows, passages: Rows) -> NDArray[np.float32]:
            own = np.tile(np.eye(len(queries), dtype=bool), 2)
            return np.where(own, self.pair(queries, passages), np.float32(np.nan))

        def batch(queries: Rows, passages: Rows) -> NDArray[np.float32]:
            negative = np.hstack([np.zeros((len(queries),) * 2, bool), np.eye(len(queries), dtype=bool)])
            return np.where(negative, np.float32(np.nan), self.batch(queries, passages))

        return pairs, batch


def _matrix(signal: str, queries: Embeddings, passages: Embeddings) -> NDArray[np.float32]:
    """[N, M] scores of few texts by torch, whose threads train beside: numpy's own would wait for them. Every
    text has a token vector at least."""
    if signal == "dense":
        return _products(queries.dense, passages.dense)
    q, p = queries.multivector, passages.multivector
    if signal != "multivector" or q is None or p is None:
        return scoring.score(signal, queries, passages)
    lengths = np.diff(q.offsets)
    assert lengths.all()
    assert np.diff(p.offsets).all()
    best = np.maximum.reduceat(_products(q.vectors, p.vectors), p.offsets[:-1], axis=1)  # [ΣTq, M]
    return np.asarray(np.add.reduceat(best, q.offsets[:-1], axis=0) / lengths[:, None], np.float32)


def _products(a: NDArray[Any] | None, b: NDArray[Any] | None) -> NDArray[np.float32]:
    """[N, d] and [M, d] → [N, M]."""
    left, right = (torch.from_numpy(np.asarray(x, np.float32)) for x in (a, b))
    return np.asarray((left @ right.T).numpy(), np.float32)
