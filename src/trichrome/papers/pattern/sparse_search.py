"""Two ways to search sparse vectors side by side: what they find, what they read, how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embeddings, Sparse
from trichrome.index.seismic import Best, Effort, Work, promises, search_blocks
from trichrome.index.seismic_blocks import Blocks
from trichrome.index.seismic_build import Blocking, build_blocks
from trichrome.index.sparse_kernel import accumulate, build_postings, top_k
from trichrome.papers.pattern.paper import Line

#: Token ids, ascending, and their weights.
Query: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"
#: Texts, best first, and their scores.
Found: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.float32]]"
#: All arms take turns so often; of each the fastest turn counts.
ROUNDS = 3


@dataclass(frozen=True)
class Index:
    """N texts with their exact postings, and in blocks. all: [N] true."""

    vectors: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    postings: dict[str, NDArray[Any]]
    blocks: Blocks
    all: NDArray[np.bool_]

    @classmethod
    def of(cls, texts: Sparse, how: Blocking) -> Index:
        """Of sparse rows."""
        vectors = (np.asarray(texts.indptr), np.asarray(texts.ids), np.asarray(texts.weights))
        postings = build_postings(texts)
        return cls(vectors, postings, build_blocks(texts, postings, how), np.ones(len(texts), np.bool_))

    def exact(self, query: Query, k: int) -> Found:
        """Every text that shares a token, term at a time."""
        scores = np.zeros(len(self.all), np.float32)
        accumulate(*query, *self.postings.values(), scores)
        best = top_k(scores, self.all, k, floor=0.0)
        return best, scores[best]

    def in_blocks(self, query: Query, k: int, effort: Effort) -> tuple[Found, Work]:
        """The blocks that promise enough."""
        best = Best(k)
        work = search_blocks(query, self.blocks, self.vectors, self.all, best, effort)
        return best.ranked(), work

    @property
    def exact_bytes(self) -> int:
        """Of the vectors and the postings."""
        return sum(array.nbytes for array in (*self.vectors, *self.postings.values()))

    def bounded(self, query: Query) -> bool:
        """Whether every block promises what each of its texts scores, or more."""
        scores = np.zeros(len(self.all), np.float32)
        accumulate(*query, *self.postings.values(), scores)
        blocks = self.blocks
        promised = [promises(query, blocks, t) for t in range(len(blocks.tokens))]
        return bool(
            (np.maximum.reduceat(scores[blocks.texts], blocks.starts[:-1]) <= np.concatenate(promised)).all()
        )


@dataclass(frozen=True)
class Point:
    """A way to search, over some queries. recall: share of the exact top k that is found. scored, read:
    texts scored and numbers read for a query, on average. seconds: a query."""

    recall: float
    scored: float
    read: float
    seconds: float


def part_of(texts: Sparse, rows: NDArray[np.int64]) -> Sparse:
    """Some of the texts, in the order of the rows."""
    made = Embeddings(sparse=texts)[rows].sparse
    assert made is not None
    return made


def points(
    index: Index, queries: Sequence[Query], k: int, efforts: Sequence[Effort], timed: bool = True
) -> tuple[Point, list[Point]]:
    """Exact search, and search in blocks with each effort. Not timed: seconds are 0."""
    truth = [index.exact(query, k) for query in queries]
    lengths = np.diff(index.postings["starts"])
    shared = read = 0
    for ids, _ in queries:
        known = ids[np.isin(ids, index.postings["terms"])]
        here = np.searchsorted(index.postings["terms"], known)
        lists = [index.postings["texts"][index.postings["starts"][t] :][: lengths[t]] for t in here]
        shared += len(np.unique(np.concatenate([np.empty(0, np.int32), *lists])))
        read += int(lengths[here].sum())
    arms: list[Callable[[Query], object]] = [lambda query: index.exact(query, k)]
    arms += [lambda query, effort=effort: index.in_blocks(query, k, effort) for effort in efforts]  # type: ignore[misc]
    seconds = _seconds(arms, queries) if timed else [0.0] * len(arms)
    made, n = [], len(queries)
    for effort, spent in zip(efforts, seconds[1:], strict=True):
        answers = [index.in_blocks(query, k, effort) for query in queries]
        made.append(
            Point(
                recall=float(np.mean([share(f[0], t) for (f, _), t in zip(answers, truth, strict=True)])),
                scored=sum(work.scored for _, work in answers) / n,
                read=sum(work.read for _, work in answers) / n,
                seconds=spent,
            )
        )
    return Point(1.0, shared / n, read / n, seconds[0]), made


@dataclass(frozen=True)
class Comparison:
    """Exact search of one index, search in blocks with every effort, and which of them was chosen. size: of
    the index, in texts. space: bytes of the blocks, as a share of those of vectors and postings."""

    size: int
    exact: Point
    blocks: list[Point]
    chosen: int
    space: float

    @classmethod
    def of(
        cls, index: Index, tune: Sequence[Query], test: Sequence[Query], k: int, efforts: Sequence[Effort],
        wanted: float,
    ) -> Comparison:  # fmt: skip
        """The effort that reads least of those that find the wanted share for some queries, for others."""
        chosen = cheapest(points(index, tune, k, efforts, timed=False)[1], wanted)
        exact, blocks = points(index, test, k, efforts)
        return cls(len(index.all), exact, blocks, chosen, index.blocks.nbytes / index.exact_bytes)

    def change(self, what: str) -> float:
        """log₂ of blocks ÷ exact, of a field of Point."""
        return log2(max(getattr(self.blocks[self.chosen], what), 1e-9) / getattr(self.exact, what))

    def cost(self, effort: int, what: str) -> float:
        """Of one effort, as a share of exact search's."""
        return float(getattr(self.blocks[effort], what) / getattr(self.exact, what))


def figures_of(found: Sequence[Comparison]) -> dict[str, float]:
    """Means over indexes of one size: exact search, and the chosen one."""
    made = {"bytes of the blocks ÷ those of vectors and postings": np.mean([c.space for c in found])}
    for arm, of in (("exact", [c.exact for c in found]), ("Seismic", [c.blocks[c.chosen] for c in found])):
        made[f"{arm}: µs a query"] = np.mean([1e6 * point.seconds for point in of])
        made[f"{arm}: documents scored"] = np.mean([point.scored for point in of])
        made[f"{arm}: numbers read"] = np.mean([point.read for point in of])
    made["Seismic: share of the exact top 10"] = np.mean([c.blocks[c.chosen].recall for c in found])
    return {f"{found[0].size:,} texts, {name}": float(value) for name, value in made.items()}


def frontier_of(found: Sequence[Comparison], what: str) -> Line:
    """What is found against what it costs, a share of exact search's, by the efforts that none surpasses."""
    kept: list[tuple[float, float]] = []
    means = (
        (np.mean([c.cost(e, what) for c in found]), np.mean([c.blocks[e].recall for c in found]))
        for e in range(len(found[0].blocks))
    )
    for cost, recall in sorted((float(cost), float(recall)) for cost, recall in means):
        if not kept or recall > kept[-1][1]:
            kept.append((cost, recall))
    return Line(kept)


def share(found: NDArray[np.int64], truth: Found) -> float:
    """Share of the exact answers that were found; 1 where there are none."""
    return float(np.isin(truth[0], found).mean()) if len(truth[0]) else 1.0


def cheapest(made: Sequence[Point], wanted: float) -> int:
    """The setting that reads least of those that find the wanted share; the best one where none does."""
    enough = [i for i, point in enumerate(made) if point.recall >= wanted]
    if enough:
        return min(enough, key=lambda i: made[i].read)
    return max(range(len(made)), key=lambda i: made[i].recall)


def _seconds(arms: Sequence[Callable[[Query], object]], queries: Sequence[Query]) -> list[float]:
    """Of each arm, a query; the arms take turns, so that what slows the machine slows all of them."""
    for arm in arms[:2]:
        arm(queries[0])  # compiled now
    best = [np.inf] * len(arms)
    for _ in range(ROUNDS):
        for i, arm in enumerate(arms):
            start = time.perf_counter()
            for query in queries:
                arm(query)
            best[i] = min(best[i], (time.perf_counter() - start) / len(queries))
    return best
