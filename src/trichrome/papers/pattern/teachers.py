"""Two teachers of a row's training: the built-in model's scores together, and its multi-vector score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trichrome import scoring
from trichrome.embeddings import MultiVector
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
    """Of Q training queries and P passages, the answers of any of them: vectors [Q, D] of the queries, scores
    [Q, P] of the teacher of pairs and of the one of batches, place of a passage's row among the P."""

    queries: NDArray[np.float32]
    pair: NDArray[np.float32]
    batch: NDArray[np.float32]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, setting: Setting, collection: Collection) -> Teachers:
        """The built-in model: all its three scores together for pairs, the multi-vector one for batches."""
        rows = np.unique(np.concatenate(collection.train.answers))
        texts = [collection.passages[i] for i in rows]
        signals = ("dense", "sparse", "multivector")
        q = encoded(collection.train.texts, "query", QUERY, signals, setting.tell)
        p = encoded(texts, "passage", PASSAGE, signals, setting.tell)
        assert p.multivector is not None  # kept as float16, which every query would turn into float32
        tokens = MultiVector(p.multivector.offsets, np.asarray(p.multivector.vectors, np.float32))
        p = replace(p, multivector=tokens)
        scores = {name: scoring.score(name, q, p) for name in signals}
        place = np.full(len(collection.passages), -1)
        place[rows] = np.arange(len(rows))
        assert q.dense is not None
        pair = scoring.weighted(scores, normalise=True)
        return cls(np.array(q.dense, np.float32), SCALE * pair, SCALE * scores["multivector"], place)

    def both(self) -> Sequence[Teacher]:
        """For a step's B answers and B negatives: the first knows a query's own two passages, the second its
        answer and what belongs to others."""

        def pairs(queries: Rows, passages: Rows) -> NDArray[np.float32]:
            own = np.tile(np.eye(len(queries), dtype=bool), 2)
            return np.where(own, self.pair[np.ix_(queries, self.place[passages])], np.float32(np.nan))

        def batch(queries: Rows, passages: Rows) -> NDArray[np.float32]:
            negative = np.hstack([np.zeros((len(queries),) * 2, bool), np.eye(len(queries), dtype=bool)])
            return np.where(negative, np.float32(np.nan), self.batch[np.ix_(queries, self.place[passages])])

        return pairs, batch
