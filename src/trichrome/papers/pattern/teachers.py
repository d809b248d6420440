"""Two teachers of a row's training: the built-in model's scores together, and its multi-vector score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
        """[B] queries, and a passage of each [B] → [B]."""
        q, p = self.queries[queries], self.passages[self.place[passages]]
        scores = {name: scoring.score_pairs(name, q, p) for name in q.signals}
        return SCALE * scoring.weighted(scores, normalise=True)

    def batch(self, queries: Rows, passages: Rows) -> NDArray[np.float32]:
        """[B] queries, [C] passages → [B, C]."""
        q, p = self.queries[queries], self.passages[self.place[passages]]
        return np.float32(SCALE) * scoring.score("multivector", q, p)

    def both(self) -> Sequence[Teacher]:
        """For a step's B answers and B negatives: the first knows a query's own two passages, the second its
        answer and what belongs to others."""

        def pairs(queries: Rows, passages: Rows) -> NDArray[np.float32]:
            own = np.tile(np.eye(len(queries), dtype=bool), 2)
            made = np.full(own.shape, np.nan, np.float32)
            of, column = np.nonzero(own)
            made[own] = self.pair(queries[of], passages[column])
            return made

        def batch(queries: Rows, passages: Rows) -> NDArray[np.float32]:
            negative = np.hstack([np.zeros((len(queries),) * 2, bool), np.eye(len(queries), dtype=bool)])
            return np.where(negative, np.float32(np.nan), self.batch(queries, passages))

        return pairs, batch
