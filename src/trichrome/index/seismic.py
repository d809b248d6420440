"""Approximate sparse search in blocks of posting lists: Seismic (Bruch et al., SIGIR 2024, arXiv 2404.18812).
Compiled by numba; `seismic_build` makes the blocks.

A query opens the lists of its `cut` heaviest tokens, the heaviest first. Of each list it sees the summaries
of the blocks: query · summary is at least the score of every text in the block, as far as summaries are kept
whole. A block below `factor` times the k-th best score so far is passed over; the texts of the others are
scored by their own vectors, each once.

So with whole lists, whole summaries, all tokens and a factor of at most 1 nothing is missed, and what comes
out is what `sparse_kernel` gives, bit for bit, equal scores included: sums are taken in one order, and
rounding never turns an order round. With factor 0 nothing is passed over, whatever the summaries hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from trichrome.index.prefetch import prefetch
from trichrome.index.seismic_blocks import Array, Blocks
from trichrome.index.sparse_kernel import marks_of, score_one

#: Of a block's texts, how many ahead are fetched, and so many lines of the cache of each, of 16 numbers.
_AHEAD, _LINES, _LINE = 2, 4, 16


@dataclass(frozen=True)
class Effort:
    """What a search spends. cut: lists that it opens, of its heaviest tokens; None opens all. factor: a block
    must promise so many times the k-th best score so far; 0 opens every block, above 1 skips more."""

    cut: int | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if (self.cut is not None and self.cut < 1) or not self.factor >= 0:
            raise ValueError("cut must be at least 1, and factor at least 0")


class Work(NamedTuple):
    """What a search did. scored: texts. opened, seen: blocks. read: numbers, of summaries and of texts."""

    scored: int
    opened: int
    seen: int
    read: int


class Best:
    """The k best texts so far, over several searches: a heap whose root is the worst. Of equal scores the
    lower position is better."""

    def __init__(self, k: int) -> None:
        self.positions = np.empty(k, np.int64)
        self.scores = np.empty(k, np.float32)
        self.size = 0

    def offer(self, positions: Array, scores: Array) -> None:
        """Keep what is good enough of texts [n] and their scores."""
        if len(self.scores):
            self.size = _offer(self.positions, self.scores, self.size, positions, scores)

    def ranked(self) -> tuple[Array, Array]:
        """Positions and scores, best first, equal scores by position."""
        positions, scores = self.positions[: self.size], self.scores[: self.size]
        order = np.lexsort((positions, -scores))
        return positions[order], scores[order]


def search_blocks(
    query: tuple[Array, Array],
    blocks: Blocks,
    vectors: tuple[Array, Array, Array],
    allowed: Array,
    best: Best,
    effort: Effort,
    first: int = 0,
) -> Work:
    """Put into `best` what a search finds with a score above 0.

    query: token ids, ascending, and their weights. vectors: indptr [N+1], ids and weights of the texts.
    allowed: [N] bool. first: the position of text 0. Texts that `best` holds already raise the bar.
    """
    if not len(best.scores):
        return Work(0, 0, 0, 0)
    cut = len(query[0]) if effort.cut is None else effort.cut
    best.size, *work = _search(
        *query, blocks, *vectors, allowed, best.positions, best.scores, best.size, cut, effort.factor, first
    )
    return Work(*work)


def promises(query: tuple[Array, Array], blocks: Blocks, t: int) -> Array:
    """[n] query · summary of the blocks of list t."""
    bounds: Array = _promises(*query, blocks, t)[0]
    return bounds


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _search(
    query_ids: Array,
    query_weights: Array,
    blocks: Blocks,
    indptr: Array,
    ids: Array,
    weights: Array,
    allowed: Array,
    positions: Array,
    scores: Array,
    size: int,
    cut: int,
    factor: float,
    first: int,
) -> tuple[int, int, int, int, int]:
    """The size of the heap, and the fields of Work."""
    done = ~allowed  # [N] scored already, or not to be scored
    marks = marks_of(query_ids)
    lists = scored = opened = seen = read = 0
    for i in np.argsort(-query_weights, kind="mergesort"):
        if lists == cut or not query_weights[i] > 0:
            break
        t = np.searchsorted(blocks.tokens, query_ids[i])
        if t == len(blocks.tokens) or blocks.tokens[t] != query_ids[i]:
            continue
        bounds, numbers = _promises(query_ids, query_weights, blocks, t)
        read += numbers
        seen += len(bounds)
        # the first list fills the heap: its most promising blocks come first
        order = np.argsort(-bounds, kind="mergesort") if lists == 0 else np.arange(len(bounds))
        lists += 1
        for place in order:
            if size == len(scores) and bounds[place] < factor * scores[0]:
                continue
            opened += 1
            b = blocks.lists[t] + place
            last = blocks.starts[b + 1]
            for p in range(blocks.starts[b], last):
                if p + _AHEAD < last:
                    _soon(indptr, ids, weights, blocks.texts[p + _AHEAD])
                text = blocks.texts[p]
                if done[text]:
                    continue
                done[text] = True
                scored += 1
                begin, end = indptr[text], indptr[text + 1]
                read += end - begin
                score = score_one(query_ids, query_weights, marks, ids, weights, begin, end)
                if score > 0:
                    size = _push(positions, scores, size, first + text, score)
    return size, scored, opened, seen, read


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _soon(indptr: Array, ids: Array, weights: Array, text: int) -> None:
    """Fetch the beginning of a text, which lies anywhere, while others are scored."""
    begin = indptr[text]
    for line in range(_LINES):
        prefetch(ids, begin + line * _LINE)
        prefetch(weights, begin + line * _LINE)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _promises(query_ids: Array, query_weights: Array, blocks: Blocks, t: int) -> tuple[Array, int]:
    """query · summary of each block of a list, and how many numbers were read. The parts are added as
    `score_one` adds them, and a negative weight counts as 0: what it takes away is not certain."""
    begin = blocks.lists[t]
    bounds = np.zeros(blocks.lists[t + 1] - begin, np.float32)
    at, end, numbers = blocks.entries[t], blocks.entries[t + 1], 0
    for i in range(len(query_ids)):
        if not query_weights[i] > 0:
            continue
        high = end
        while at < high:  # the first number of this token or a later one
            middle = (at + high) // 2
            if blocks.ids[middle] < query_ids[i]:
                at = middle + 1
            else:
                high = middle
        while at < end and blocks.ids[at] == query_ids[i]:
            place = blocks.places[at]
            bounds[place] += query_weights[i] * (blocks.steps[begin + place] * np.float32(blocks.codes[at]))
            at += 1
            numbers += 1
    return bounds, numbers


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _offer(positions: Array, scores: Array, size: int, new: Array, new_scores: Array) -> int:
    for i in range(len(new)):
        size = _push(positions, scores, size, new[i], new_scores[i])
    return size


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _push(positions: Array, scores: Array, size: int, position: int, score: float) -> int:
    """Put a text into the heap, in the worst one's place where it is full; returns the new size."""
    if size < len(scores):  # up from the end
        at = size
        size += 1
        while at > 0 and _worse(score, position, scores[(at - 1) // 2], positions[(at - 1) // 2]):
            scores[at], positions[at] = scores[(at - 1) // 2], positions[(at - 1) // 2]
            at = (at - 1) // 2
    elif _worse(scores[0], positions[0], score, position):  # down from the root
        at = 0
        while 2 * at + 1 < size:
            child = 2 * at + 1
            if child + 1 < size and _worse(
                scores[child + 1], positions[child + 1], scores[child], positions[child]
            ):
                child += 1
            if not _worse(scores[child], positions[child], score, position):
                break
            scores[at], positions[at] = scores[child], positions[child]
            at = child
    else:
        return size
    scores[at], positions[at] = score, position
    return size


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _worse(score: float, position: int, other: float, other_position: int) -> bool:
    return bool(score < other or (score == other and position > other_position))
