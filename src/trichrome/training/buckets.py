"""Which rows may share a batch: buckets of one task (and language) and near length, kept in an unnamed file.

The rows' numbers lie there bucket after bucket, in a mapped file that the system removes with the process;
memory holds a few numbers a bucket, whatever the number of rows.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trichrome.training.lengths import Lengths
from trichrome.training.mapped import MappedArray

#: A language with fewer rows of a task shares batches with the task's other small languages.
LEAST_OF_A_LANGUAGE = 16
#: A length group with fewer rows joins the next longer one; the longest takes rows of the next shorter one.
LEAST_OF_A_GROUP = 8

#: (scope, language, length group): scope 0 is shared by files whose batches may mix, 1 + n is file n.
Key = tuple[int, int, int]
_SMALL = -1


@dataclass(frozen=True)
class Bucket:
    """rows in it; their longest query and passage in tokens; the most passages that one of them brings."""

    rows: int
    query: int
    passage: int
    passages: int

    def joined(self, other: Bucket) -> Bucket:
        """Both as one."""
        longest = (max(getattr(self, n), getattr(other, n)) for n in ("query", "passage", "passages"))
        return Bucket(self.rows + other.rows, *longest)


@dataclass(frozen=True)
class Grouping:
    """How rows are put into buckets. by: one of task, language, any for each file. bounds: upper bounds of
    the length groups, or none. query, passage: where texts are cut. positives, negatives: the most of a
    row's that are used."""

    by: Sequence[str]
    bounds: Sequence[int]
    query: int
    passage: int
    positives: int | None
    negatives: int


@dataclass(frozen=True)
class Buckets:
    """order [N] int64: row numbers, bucket after bucket, in the data's order. starts [K+1]: of the buckets in
    it. buckets [K]. cut: how many queries, and how many passages, are longer than is read."""

    order: MappedArray
    starts: NDArray[np.int64]
    buckets: list[Bucket]
    cut: tuple[int, int]

    @classmethod
    def make(cls, lengths: Lengths, grouping: Grouping, folder: Path) -> Buckets:
        """Two passes over the rows' lengths: count, then place."""
        found, cut = _count(lengths, grouping)
        renamed = _small_languages(found)
        slots = sorted(set(renamed.values()))
        whole: dict[Key, Bucket] = {}
        for key, bucket in found.items():
            name = renamed[key]
            whole[name] = whole[name].joined(bucket) if name in whole else bucket
        starts = np.cumsum([0, *(whole[s].rows for s in slots)])
        places = {name: i for i, name in enumerate(slots)}
        slot_of = {key: places[name] for key, name in renamed.items()}
        order = _unnamed_array(len(lengths), folder)
        _fill(order, starts[:-1].copy(), slot_of, lengths, grouping)
        made, edges = [], [0]
        for family in _families(slots):
            joined = _join_small([whole[s] for s in family])
            made += joined
            edges += [edges[-1] + n for n in np.cumsum([b.rows for b in joined]).tolist()]
        return cls(order, np.array(edges, np.int64), made, cut)


def _keys(
    lengths: Lengths, grouping: Grouping
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], tuple[int, int]]]:
    """Of each piece of the data: (its first row, keys [n, 3], [n, 3] longest query and passage and number of
    passages of each row, (queries cut, passages cut))."""
    for file, first, rows, counts, query_at in lengths.chunks():
        n = len(rows)
        queries = counts[query_at]
        is_query = np.zeros(len(counts), bool)
        is_query[query_at] = True
        cut = int((queries > grouping.query).sum()), int((counts[~is_query] > grouping.passage).sum())
        # a row's query stands between the passages of two rows: as 0 it is never the longest
        longest = np.maximum.reduceat(np.where(is_query, 0, counts), query_at)
        positives = np.minimum(rows["positives"], grouping.positives or rows["positives"].max())
        room = np.maximum(grouping.negatives + 1 - positives, 0)
        sizes = np.stack(
            [
                np.minimum(queries, grouping.query),
                np.minimum(longest, grouping.passage),
                positives + np.minimum(rows["negatives"], room),
            ],
            axis=1,
        ).astype(np.int64)
        by = grouping.by[file]
        keys = np.zeros((n, 3), np.int64)
        keys[:, 0] = 0 if by == "any" else 1 + file
        if by == "language":
            keys[:, 1] = rows["lang"]
        if len(grouping.bounds):
            keys[:, 2] = np.searchsorted(grouping.bounds, sizes[:, 1])
        yield first, keys, sizes, cut


def _distinct(keys: NDArray[np.int64]) -> tuple[list[Key], NDArray[np.int64]]:
    """The distinct rows of keys [n, 3], and for each row which of them it is."""
    langs, groups = int(keys[:, 1].max()) + 1, int(keys[:, 2].max()) + 1
    packed = (keys[:, 0] * langs + keys[:, 1]) * groups + keys[:, 2]  # numbers sort faster than rows
    _, first, which = np.unique(packed, return_index=True, return_inverse=True)
    return [(int(a), int(b), int(c)) for a, b, c in keys[first]], which


def _count(lengths: Lengths, grouping: Grouping) -> tuple[dict[Key, Bucket], tuple[int, int]]:
    found: dict[Key, Bucket] = {}
    queries_cut = passages_cut = 0
    for _, keys, sizes, cut in _keys(lengths, grouping):
        names, which = _distinct(keys)
        largest = np.zeros((len(names), 3), np.int64)
        np.maximum.at(largest, which, sizes)
        for name, rows, most in zip(names, np.bincount(which).tolist(), largest.tolist(), strict=True):
            bucket = Bucket(rows, *most)
            found[name] = found[name].joined(bucket) if name in found else bucket
        queries_cut, passages_cut = queries_cut + cut[0], passages_cut + cut[1]
    return found, (queries_cut, passages_cut)


def _small_languages(found: Mapping[Key, Bucket]) -> dict[Key, Key]:
    """The key that each key goes by: small languages of one task go together."""
    rows: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for (scope, lang, _), bucket in found.items():
        rows[scope][lang] += bucket.rows
    small: set[tuple[int, int]] = set()
    for scope, languages in rows.items():
        together = 0
        for lang, n in sorted(languages.items(), key=lambda item: (item[1], item[0])):
            if len(languages) > 1 and (n < LEAST_OF_A_LANGUAGE or 0 < together < LEAST_OF_A_GROUP):
                small.add((scope, lang))
                together += n
    return {k: (k[0], _SMALL, k[2]) if k[:2] in small else k for k in found}


def _families(slots: Sequence[Key]) -> list[list[Key]]:
    """Slots of one scope and language together, their length groups ascending."""
    families: dict[tuple[int, int], list[Key]] = {}
    for slot in slots:  # sorted
        families.setdefault(slot[:2], []).append(slot)
    return list(families.values())


def _join_small(family: Sequence[Bucket]) -> list[Bucket]:
    """Buckets of neighbouring lengths, none too small where the family has as many rows at all.

    Only edges between neighbours move, so the rows need not be placed again.
    """
    made: list[Bucket] = []
    for bucket in family:
        if made and made[-1].rows < LEAST_OF_A_GROUP:
            bucket = made.pop().joined(bucket)
        made.append(bucket)
    if len(made) > 1 and (missing := LEAST_OF_A_GROUP - made[-1].rows) > 0:
        shorter, longest = made[-2:]
        if shorter.rows - missing >= LEAST_OF_A_GROUP:
            grown = longest.joined(shorter)
            made[-2:] = [_resized(shorter, shorter.rows - missing), _resized(grown, LEAST_OF_A_GROUP)]
        else:
            made[-2:] = [shorter.joined(longest)]
    return made


def _resized(bucket: Bucket, rows: int) -> Bucket:
    return Bucket(rows, bucket.query, bucket.passage, bucket.passages)


def _unnamed_array(n: int, folder: Path) -> MappedArray:
    """Int64 [n] in a file without a name."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(8 * n)
        return MappedArray(file, np.dtype(np.int64), write=True)


def _fill(
    order: MappedArray,
    cursor: NDArray[np.int64],
    slot_of: Mapping[Key, int],
    lengths: Lengths,
    grouping: Grouping,
) -> None:
    """Put every row's number where its slot goes on; cursor [slots] moves along."""
    for first, keys, _, _ in _keys(lengths, grouping):
        names, which = _distinct(keys)
        slots = np.array([slot_of[name] for name in names])[which]
        by_slot = np.argsort(slots, kind="stable")
        counts = np.bincount(slots, minlength=len(cursor))
        before = np.cumsum(counts) - counts
        ordered = slots[by_slot]
        order.put(cursor[ordered] + np.arange(len(slots)) - before[ordered], first + by_slot)
        cursor += counts


def batch_counts(
    buckets: Sequence[Bucket], rows_of: Callable[[Bucket], int], least: int
) -> NDArray[np.int64]:
    """[K] into how many batches each bucket's rows are dealt, evenly.

    rows_of: how many rows fit into a batch. least: a batch of fewer rows takes part in the others, even
    where these then hold one row more than fits.
    """
    counts = []
    for bucket in buckets:
        n = -(-bucket.rows // max(rows_of(bucket), least))
        while n > 1 and bucket.rows // n < least:
            n -= 1
        counts.append(n)
    return np.array(counts, np.int64)
