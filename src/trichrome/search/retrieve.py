"""Candidates from a store, and every score that a mode needs of them.

A candidate that one list lacks gets its missing score computed, never zeroed: the modes are sums of raw
scores. One table of scores serves several modes, so that an evaluation retrieves once and ranks five times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import SIGNALS, Embedding
from trichrome.errors import TrichromeError
from trichrome.index.store import Candidates, Filter, Manifest, Store
from trichrome.search.fuse import Fusion, best, reciprocal_rank_fusion, weighted_sum
from trichrome.search.modes import FIRST_STAGE, Mode

#: The place of a document that a signal's list doesn't hold.
_NOT_LISTED = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The scores of one query's candidates.

    rows: [n] the store's keys, ascending.
    scores: signal → [n] float32; NaN only where no mode asked for that signal of that document.
    places: each signal that gave candidates → [n] the document's place in its list, from 0 (the largest
    integer where the list doesn't hold it).
    """

    rows: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]
    places: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.rows)

    def candidates(self, mode: Mode) -> NDArray[np.int64]:
        """Positions in this table of the documents that a mode ranks."""
        listed = np.zeros(len(self.rows), dtype=bool)
        for source in mode.sources:
            listed |= self.places[source] < mode.depth
        return np.flatnonzero(listed)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents of one query, best first. positions: [k] in the table; rows: [k] the store's keys;
    scores: [k] float32, what they are ranked by."""

    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def store_signals(manifest: Manifest) -> tuple[str, ...]:
    """The signals that a store holds."""
    held = (manifest.dense_dim is not None, manifest.sparse, manifest.multivector_dim is not None)
    return tuple(name for name, there in zip(SIGNALS, held, strict=True) if there)


def query_signals(query: Embedding) -> tuple[str, ...]:
    """The signals that an encoded query holds."""
    held = (query.dense is not None, query.token_ids is not None, query.multivector is not None)
    return tuple(name for name, there in zip(SIGNALS, held, strict=True) if there)


def require_signals(mode: Mode, held: Sequence[str], holder: str) -> None:
    """Raise where a mode needs a signal that the store or the query ("this store", …) doesn't hold."""
    missing = [name for name in mode.needed if name not in held]
    if missing:
        raise TrichromeError(
            f"mode {mode.name} needs {', '.join(mode.needed)}, but {holder} has no {' or '.join(missing)} "
            f"output (only {', '.join(held) or 'nothing'}): choose another mode, weights or candidates, "
            f"or encode with the missing outputs"
        )


def retrieve(
    store: Store, query: Embedding, modes: Sequence[Mode], where: Filter | None = None
) -> ScoreTable:
    """The candidates of all modes together, with every score that one of them needs.

    Errors: TrichromeError where the store or the query lacks a signal that a mode needs.
    """
    stored, given = store_signals(store.manifest), query_signals(query)
    for mode in modes:
        require_signals(mode, stored, "this store")
        require_signals(mode, given, "this query")

    found: dict[str, Candidates] = {}
    for source in FIRST_STAGE:
        depth = max((mode.depth for mode in modes if source in mode.sources), default=0)
        if depth:
            found[source] = store.search(source, query, depth, where)
    lists = [candidates.rows for candidates in found.values()]
    rows = np.unique(np.concatenate(lists)) if lists else np.empty(0, np.int64)  # [n]

    scores = dict(zip(SIGNALS, np.full((len(SIGNALS), len(rows)), np.nan, np.float32), strict=True))
    places = {}
    for source, candidates in found.items():
        at = np.searchsorted(rows, candidates.rows)
        scores[source][at] = candidates.scores
        places[source] = np.full(len(rows), _NOT_LISTED, np.int64)
        places[source][at] = np.arange(len(at))

    table = ScoreTable(rows, scores, places)
    for mode in modes:
        complete(store, query, table, mode.signals, table.candidates(mode))
    return table


def complete(
    store: Store, query: Embedding, table: ScoreTable, signals: Sequence[str], positions: NDArray[np.int64]
) -> None:
    """Compute in place the signals' scores that are still missing at these positions of the table."""
    missing = {}
    for signal in signals:
        unknown = positions[np.isnan(table.scores[signal][positions])]
        if len(unknown):
            missing[signal] = unknown
    if missing:
        computed = store.scores_of(query, {signal: table.rows[at] for signal, at in missing.items()})
        for signal, at in missing.items():
            table.scores[signal][at] = computed[signal]


def rank(table: ScoreTable, mode: Mode, k: int | None = None, fusion: Fusion = "weighted") -> Ranking:
    """The k best (or all) candidates of a mode, best first; ties by the store's key."""
    if fusion not in ("weighted", "rrf"):
        raise TrichromeError(f"unknown fusion {fusion!r}; there are weighted and rrf")
    of_mode = table.candidates(mode)
    scores = {name: table.scores[name][of_mode] for name in mode.signals}
    fuse = weighted_sum if fusion == "weighted" else reciprocal_rank_fusion
    fused = fuse(scores, mode.weights)
    order = best(fused, table.rows[of_mode], len(fused) if k is None else k)
    positions = of_mode[order]
    return Ranking(positions, table.rows[positions], fused[order])
