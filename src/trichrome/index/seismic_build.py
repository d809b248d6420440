"""Posting lists in blocks of similar texts, each with a summary: what `seismic` searches. Compiled by numba.

After Seismic (Bruch et al., SIGIR 2024, arXiv 2404.18812), and where the paper leaves it open after its
public code: of all postings the heaviest are kept, so many a token on average; in each list texts are drawn
as centres, and every text joins the centre of largest inner product; a block's summary is the largest weight
of every token among its texts, of which the largest are kept, up to a share of their sum, in a byte each.

Two things are otherwise here. Bytes are rounded up, so that a summary that is kept whole bounds every text of
its block. And centres are drawn by a hash of seed, token and text, so that a list's blocks depend on nothing
but the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from trichrome.embeddings import Sparse
from trichrome.index.seismic_blocks import Array, Blocks

#: Blocks of a list at most: they are numbered in two bytes.
_MOST_BLOCKS = 1 << 16
#: Numbers of summaries, before they are shortened, that one call of compiled code makes room for.
_ROOM = 1 << 22


@dataclass(frozen=True)
class Blocking:
    """How lists are cut and summarised.

    postings: kept a token on average, the heaviest of all lists; None keeps all. longest: a list holds at
    most so many times `postings`. centres: of a list, as a share of its length. smallest: texts of a block;
    smaller ones are divided among the others. energy: share of a summary's sum that is kept, by its largest
    numbers; 1 keeps it whole. seed: of the drawing of centres.
    """

    postings: int | None = 3500
    longest: float = 1.5
    centres: float = 0.1
    smallest: int = 2
    energy: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.postings is not None and self.postings < 1) or self.longest < 1 or self.smallest < 1:
            raise ValueError("postings, longest and smallest must be at least 1")
        if not (0 < self.centres <= 1 and 0 < self.energy <= 1):
            raise ValueError("centres and energy are shares: above 0, at most 1")


def build_blocks(sparse: Sparse, postings: Mapping[str, Array], how: Blocking | None = None) -> Blocks:
    """The blocks of sparse rows [N] and their `build_postings`; the same for the same input, always."""
    how = how or Blocking()
    tokens, indptr = postings["terms"], np.asarray(sparse.indptr, np.int64)
    starts, texts = _pruned(postings, how)
    columns = np.searchsorted(tokens, np.asarray(sparse.ids)).astype(np.int32)  # [nnz] into tokens
    weights = np.asarray(sparse.weights, np.float32)
    room = np.zeros(len(texts) + 1, np.int64)  # what summaries take at most, up to each posting
    np.cumsum(np.diff(indptr)[texts], out=room[1:])
    upto = room[starts]  # [m+1]
    parts: list[tuple[Array, ...]] = []
    first = 0
    while first < len(tokens):
        last = max(first + 1, int(np.searchsorted(upto, upto[first] + _ROOM, side="right")) - 1)
        most = int(upto[last] - upto[first])
        parts.append(
            _cut_lists(
                first, last, most, starts, texts, indptr, columns, weights, tokens,
                how.centres, how.smallest, how.energy, np.uint64(how.seed),
            )
        )  # fmt: skip
        first = last
    return _joined(tokens, parts)


def _joined(tokens: Array, parts: list[tuple[Array, ...]]) -> Blocks:
    """Parts of lists after one another; the arrays can't be written to, as those of a file can't."""

    def all_of(which: int, dtype: type) -> Array:
        return np.concatenate([np.empty(0, dtype), *(part[which] for part in parts)]).astype(dtype)

    def offsets(which: int) -> Array:
        lengths = all_of(which, np.int64)
        made = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=made[1:])
        return made

    made = Blocks(
        tokens,
        offsets(0),
        offsets(1),
        all_of(2, np.int32),
        all_of(3, np.float32),
        offsets(4),
        tokens[all_of(5, np.int32)] if len(tokens) else np.empty(0, np.int32),
        all_of(6, np.uint16),
        all_of(7, np.uint8),
    )
    for array in made[1:]:
        array.flags.writeable = False
    return made


def _pruned(postings: Mapping[str, Array], how: Blocking) -> tuple[Array, Array]:
    """Starts [m+1] and texts of the postings that are kept; equal weights in the order of the lists."""
    starts, texts, weights = postings["starts"], postings["texts"], postings["weights"]
    if how.postings is None:
        return starts, texts
    kept = np.ones(len(texts), np.bool_)
    total = how.postings * (len(starts) - 1)
    if len(texts) > total:
        kept[np.argsort(-weights, kind="stable")[total:]] = False
    most = int(how.longest * how.postings)
    for t in np.flatnonzero(np.diff(starts) > most):
        here = slice(starts[t], starts[t + 1])
        kept[here][np.argsort(-weights[here], kind="stable")[most:]] = False
    counted = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(kept, out=counted[1:])
    return counted[starts], texts[kept]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cut_lists(
    first: int,
    last: int,
    room: int,
    starts: Array,
    texts: Array,
    indptr: Array,
    columns: Array,
    weights: Array,
    tokens: Array,
    share: float,
    smallest: int,
    energy: float,
    seed: int,
) -> tuple[Array, ...]:
    """Lists first:last in blocks. Returns the blocks of each list [lists], texts of each block, texts, steps
    [blocks], numbers of each list's summaries [lists], and their columns, places and codes."""
    postings = starts[last] - starts[first]
    blocks_of, entries_of = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
    texts_of, steps = np.empty(postings, np.int64), np.empty(postings, np.float32)
    made = np.empty(postings, np.int32)
    # what summaries hold, block after block, of one list; and of all lists, by token
    in_columns, by_columns = np.empty(room, np.int32), np.empty(room, np.int32)
    in_places, by_places = np.empty(room, np.uint16), np.empty(room, np.uint16)
    in_codes, by_codes = np.empty(room, np.uint8), np.empty(room, np.uint8)
    count, begin = np.zeros(len(tokens), np.int64), np.zeros(len(tokens), np.int64)
    largest, touched = np.zeros(len(tokens), np.float32), np.empty(len(tokens), np.int32)
    block = entry = done = 0
    for t in range(first, last):
        members = texts[starts[t] : starts[t + 1]]
        if len(members) == 0:
            continue
        key = _mixed(seed ^ _mixed(np.uint64(tokens[t])))
        group = _grouped(members, share, smallest, key, indptr, columns, weights, count, begin)
        order = np.argsort(group, kind="mergesort")  # stable: texts ascend in each block
        place, a, raw = 0, 0, 0
        while a < len(order):
            b = a
            while b < len(order) and group[order[b]] == group[order[a]]:
                made[done + b] = members[order[b]]
                b += 1
            texts_of[block] = b - a
            steps[block], raw = _summarise(
                made[done + a : done + b], indptr, columns, weights, energy, place, largest, touched,
                in_columns, in_places, in_codes, raw,
            )  # fmt: skip
            block += 1
            place += 1
            a = b
        done += len(members)
        # by token: counted, then put in place, which keeps the order of blocks
        found = 0
        for i in range(raw):
            if count[in_columns[i]] == 0:
                touched[found] = in_columns[i]
                found += 1
            count[in_columns[i]] += 1
        ascending = np.sort(touched[:found])
        at = entry
        for c in ascending:
            begin[c] = at
            at += count[c]
            count[c] = 0
        for i in range(raw):
            c = in_columns[i]
            by_columns[begin[c]], by_places[begin[c]], by_codes[begin[c]] = c, in_places[i], in_codes[i]
            begin[c] += 1
        entry += raw
        blocks_of[t - first], entries_of[t - first] = place, raw
    return (
        blocks_of,
        texts_of[:block].copy(),
        made[:done].copy(),
        steps[:block].copy(),
        entries_of,
        by_columns[:entry].copy(),
        by_places[:entry].copy(),
        by_codes[:entry].copy(),
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mixed(x: Any) -> Any:
    """A hash of 64 bits (the finaliser of splitmix64)."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grouped(
    members: Array,
    share: float,
    smallest: int,
    key: int,
    indptr: Array,
    columns: Array,
    weights: Array,
    count: Array,
    begin: Array,
) -> Array:
    """[L] the block of each text of a list. count, begin: of each token; count is 0 before and after."""
    group = np.zeros(len(members), np.int64)
    n = min(int(share * len(members)), _MOST_BLOCKS)
    if n <= 1:
        return group
    keys = np.empty(len(members), np.uint64)
    for i in range(len(members)):
        keys[i] = _mixed(key ^ np.uint64(members[i]))
    centres = members[np.sort(np.argsort(keys, kind="mergesort")[:n])]
    # the centres' own inverted index: most pairs of texts share few tokens
    total = 0
    for centre in centres:
        for p in range(indptr[centre], indptr[centre + 1]):
            count[columns[p]] += 1
            total += 1
    at = 0
    holders, held = np.empty(total, np.int32), np.empty(total, np.float32)
    for number in range(n):
        for p in range(indptr[centres[number]], indptr[centres[number] + 1]):
            c = columns[p]
            if count[c] > 0:  # met for the first time: its range begins here, and count says how far it goes
                begin[c], at = at, at + count[c]
                count[c] = -count[c]
    used = np.zeros(at, np.int32)  # how much of the range at its start is filled
    for number in range(n):
        for p in range(indptr[centres[number]], indptr[centres[number] + 1]):
            c = columns[p]
            slot = begin[c] + used[begin[c]]
            used[begin[c]] += 1
            holders[slot], held[slot] = number, weights[p]
    alive, sums = np.ones(n, np.bool_), np.zeros(n, np.float32)
    sizes = np.zeros(n, np.int64)
    for i in range(len(members)):
        group[i] = _nearest(members[i], indptr, columns, weights, count, begin, holders, held, alive, sums)
        sizes[group[i]] += 1
    alive = sizes >= smallest
    if alive.any():
        for i in range(len(members)):
            if not alive[group[i]]:
                group[i] = _nearest(
                    members[i], indptr, columns, weights, count, begin, holders, held, alive, sums
                )
    for centre in centres:
        for p in range(indptr[centre], indptr[centre + 1]):
            count[columns[p]] = 0
    return group


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest(
    text: int,
    indptr: Array,
    columns: Array,
    weights: Array,
    count: Array,
    begin: Array,
    holders: Array,
    held: Array,
    alive: Array,
    sums: Array,
) -> int:
    """The living centre of largest inner product with a text, the first of equal ones."""
    sums[:] = 0
    for p in range(indptr[text], indptr[text + 1]):
        c = columns[p]
        for i in range(begin[c], begin[c] - count[c]):  # count is negative for tokens of centres, else 0
            sums[holders[i]] += weights[p] * held[i]
    best = -1
    for number in range(len(sums)):
        if alive[number] and (best < 0 or sums[number] > sums[best]):
            best = number
    return best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _summarise(
    members: Array,
    indptr: Array,
    columns: Array,
    weights: Array,
    energy: float,
    place: int,
    largest: Array,
    touched: Array,
    out_columns: Array,
    out_places: Array,
    out_codes: Array,
    at: int,
) -> tuple[Any, int]:
    """Write the summary of a block from `at` on; returns its step and where it ends. largest: of each token,
    0 before and after."""
    found, top = 0, np.float32(0.0)
    for text in members:
        for p in range(indptr[text], indptr[text + 1]):
            c = columns[p]
            if weights[p] > largest[c]:
                if largest[c] == 0:
                    touched[found] = c
                    found += 1
                largest[c] = weights[p]
                top = max(top, weights[p])
    step = max(top / np.float32(255.0), np.float32(1e-35))
    while step * np.float32(255.0) < top:
        step *= np.float32(1.0000001)
    levels = np.zeros(256)  # the sum of the numbers of each code
    end = at
    for i in range(found):
        value = largest[touched[i]]
        code = min(max(int(np.ceil(value / step)), 1), 255)
        while step * np.float32(code) < value:  # rounding down is never a bound
            code += 1
        levels[code] += value
        out_columns[end], out_places[end], out_codes[end] = touched[i], place, code
        end += 1
        largest[touched[i]] = 0
    if energy >= 1:
        return step, end
    wanted, lowest = energy * levels.sum(), 255
    total = levels[255]
    while total < wanted and lowest > 1:
        lowest -= 1
        total += levels[lowest]
    kept = at
    for i in range(at, end):
        if out_codes[i] >= lowest:
            out_columns[kept], out_places[kept], out_codes[kept] = out_columns[i], out_places[i], out_codes[i]
            kept += 1
    return step, kept
