"""Where candidates come from. A finder gives, for some queries, ranked rows of the pool."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings
from trichrome.negatives.pool import MiningEncoder, Pool, Rows, Scores
from trichrome.negatives.settings import MineSettings
from trichrome.negatives.topics import topics
from trichrome.search.bm25 import BM25, words
from trichrome.search.fuse import best, weighted_sum

Tokenise: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[Hashable]]]


@dataclass(frozen=True)
class Queries:
    """All queries of one mining run, by position.

    texts: as the encoder reads them. embeddings: with the outputs that mining needs. langs: of their rows.
    positives: rows of the pool that answer each.
    """

    texts: Sequence[str]
    embeddings: Embeddings
    langs: Sequence[str | None]
    positives: Sequence[Rows]


class Finder(Protocol):
    """One source of candidates."""

    def find(self, some: NDArray[np.int64], k: int, lang: str | None) -> list[Rows]:
        """For each of some queries (positions [B]) at most k rows of that language's pool, best first."""


def finder(
    name: str, pool: Pool, queries: Queries, encoder: MiningEncoder | None, settings: MineSettings
) -> Finder:
    """The finder of a source's name. encoder: for bm25, whose tokens are the model's."""
    if name == "random":
        return RandomFinder(pool, queries, settings.seed)
    if name == "topic":
        return TopicFinder(pool, queries, settings.topic_size, settings.seed)
    if name == "hybrid":
        return HybridFinder(pool, queries, settings.weights)
    if name == "bm25-words" or (name == "bm25" and encoder is None):
        return BM25Finder(pool, queries, lambda texts: [words(text) for text in texts])
    if name == "bm25":
        assert encoder is not None
        return BM25Finder(pool, queries, encoder.token_ids)
    return SignalFinder(pool, queries, name)


@dataclass
class SignalFinder:
    """The best by the dense or the sparse score."""

    pool: Pool
    queries: Queries
    signal: str

    def find(self, some: NDArray[np.int64], k: int, lang: str | None) -> list[Rows]:
        return self.pool.search(self.signal, self.queries.embeddings.select(self.signal)[some], k, lang)


@dataclass
class HybridFinder:
    """The best by the weighted sum of scores, out of the k best dense and the k best sparse; a score that
    one list lacks is computed."""

    pool: Pool
    queries: Queries
    weights: tuple[float, float, float]

    def find(self, some: NDArray[np.int64], k: int, lang: str | None) -> list[Rows]:
        lists = [
            SignalFinder(self.pool, self.queries, name).find(some, k, lang) for name in ("dense", "sparse")
        ]
        found = []
        for i, dense, sparse in zip(some.tolist(), *lists, strict=True):
            rows = np.unique(np.concatenate([dense, sparse]))
            scores = hybrid_scores(self.pool, self.queries.embeddings[i], rows, self.weights)
            found.append(rows[best(scores, rows, k)])
        return found


def hybrid_scores(pool: Pool, query: Embedding, rows: Rows, weights: tuple[float, float, float]) -> Scores:
    """[n] the weighted sum of the signals that weigh anything."""
    names = [n for n, w in zip(("dense", "sparse", "multivector"), weights, strict=True) if w]
    return weighted_sum({name: pool.scores(name, query, rows) for name in names}, weights)


class BM25Finder:
    """The best by BM25, over any tokens; a language's passages are an index of their own."""

    def __init__(self, pool: Pool, queries: Queries, tokenise: Tokenise) -> None:
        self._pool, self._queries, self._tokenise = pool, queries, tokenise
        self._index: tuple[str | None, Rows, BM25] | None = None

    def find(self, some: NDArray[np.int64], k: int, lang: str | None) -> list[Rows]:
        if self._index is None or self._index[0] != lang:
            rows = self._pool.rows(lang)
            self._index = (lang, rows, BM25(self._tokenise(self._pool.texts(rows))))
        _, rows, index = self._index
        asked = self._tokenise([self._queries.texts[i] for i in some.tolist()])
        return [rows[index.search(query, k)[0]] for query in asked]


@dataclass
class RandomFinder:
    """Any passages, in an order that depends on the seed and the query's text alone."""

    pool: Pool
    queries: Queries
    seed: int

    def find(self, some: NDArray[np.int64], k: int, lang: str | None) -> list[Rows]:
        rows = self.pool.rows(lang)
        k = min(k, len(rows))
        return [
            rows[generator(self.seed, self.queries.texts[i], "random").choice(len(rows), k, replace=False)]
            for i in some.tolist()
        ]


class TopicFinder:
    """Passages that answer other queries of the same topic, in random order.

    Topics are clusters of the queries' dense vectors, within a language where the search is.
    """

    def __init__(self, pool: Pool, queries: Queries, size: int, seed: int) -> None:
        self._pool, self._queries, self._size, self._seed = pool, queries, size, seed
        self._topics: tuple[str | None, dict[int, Rows]] | None = None

    def find(self, some: NDArray[np.int64], k: int, lang: str | None) -> list[Rows]:
        if self._topics is None or self._topics[0] != lang:
            self._topics = (lang, self._answers(lang))
        _, answers = self._topics
        found = []
        for i in some.tolist():
            rows = answers[i]
            draw = generator(self._seed, self._queries.texts[i], "topic")
            found.append(rows[draw.permutation(len(rows))[:k]])
        return found

    def _answers(self, lang: str | None) -> dict[int, Rows]:
        """Query → the rows that answer any query of its topic."""
        q = self._queries
        mine = np.array([i for i, of in enumerate(q.langs) if lang is None or of == lang], np.int64)
        dense = q.embeddings.dense
        assert dense is not None
        labels = topics(np.asarray(dense[mine], np.float32), self._size, self._seed)
        pool = self._pool.rows(lang)
        answers: dict[int, Rows] = {}
        for label in np.unique(labels).tolist():
            members = mine[labels == label].tolist()
            rows = np.unique(np.concatenate([q.positives[i] for i in members]))
            answers |= dict.fromkeys(members, rows[np.isin(rows, pool)])
        return answers


def generator(seed: int, text: str, use: str) -> np.random.Generator:
    """Random numbers for one query and one use, whatever else is mined beside it."""
    return np.random.default_rng(
        [seed, zlib.crc32(text.encode("utf-8", "surrogatepass")), zlib.crc32(use.encode())]
    )
