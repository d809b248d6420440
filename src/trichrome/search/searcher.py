"""Searcher: one encoder and one store, asked in words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import SIGNALS, Embedding, Embeddings
from trichrome.errors import RowGone, TrichromeError
from trichrome.index import check_model, document_of
from trichrome.index.build import HASH_FIELD
from trichrome.index.store import Filter, Store
from trichrome.records import Payload
from trichrome.search.explain import Explanation, Spanner, WeighedToken, explain, weigh
from trichrome.search.feedback import Feedback
from trichrome.search.fuse import Fusion
from trichrome.search.modes import Candidates, Mode, Preset, mode_named
from trichrome.search.retrieve import (
    complete,
    query_signals,
    rank,
    require_signals,
    retrieve,
    store_signals,
)

#: Candidates that each list gives unless the caller says otherwise: enough for a page of hits, and several
#: times faster than the 1,000 that the paper's evaluation takes.
INTERACTIVE_DEPTH = 200
#: How often a search is begun again because another client of the store replaced a candidate under it.
_TRIES = 5


class QueryEncoder(Spanner, Protocol):
    """What search uses of an encoder."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def signals(self) -> tuple[str, ...]: ...

    def encode(self, texts: Sequence[str], kind: str = ..., outputs: Sequence[str] = ...) -> Embeddings: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found.

    score: what it is ranked by. dense, sparse, multivector: its three scores, whatever the mode; None where
    the store or the query lacks that signal. payload: as it was given to the index; text, title and lang
    are read from it.
    """

    id: str
    score: float
    dense: float | None = None
    sparse: float | None = None
    multivector: float | None = None
    payload: Payload = field(default_factory=dict)

    @property
    def text(self) -> str:
        return str(self.payload.get("text") or "")

    @property
    def title(self) -> str:
        return str(self.payload.get("title") or "")

    @property
    def lang(self) -> str | None:
        lang = self.payload.get("lang")
        return None if lang is None else str(lang)

    @property
    def content(self) -> str:
        """What was encoded; the offsets of an Explanation count from its start."""
        return document_of(self.id, self.payload).content


class Searcher:
    """Search one store with the encoder that built it, or with a query tower that learnt that one's queries.

    Errors: ModelMismatch where the store was built with another model or other settings.
    """

    def __init__(self, encoder: QueryEncoder, store: Store) -> None:
        check_model(store.manifest, searched_by(encoder), encoder.name)
        self.encoder = encoder
        self.store = store
        #: The signals that both the store and the encoder have.
        self.signals = tuple(s for s in store_signals(store.manifest) if s in encoder.signals)

    def encode(self, text: str) -> Embedding:
        """One query's outputs, as far as the store holds the same ones."""
        if not text.strip():
            raise TrichromeError("the query is empty: give at least one word")
        return self.encoder.encode([text], kind="query", outputs=self.signals)[0]

    def search(
        self,
        query: str | Embedding,
        mode: str | Mode = "all",
        k: int = 10,
        where: Filter | None = None,
        weights: Sequence[float] | None = None,
        depth: int | None = None,
        fusion: Fusion = "weighted",
        *,
        preset: Preset = "m3",
        candidates: Candidates | None = None,
        feedback: Feedback | None = None,
    ) -> list[Hit]:
        """The k best documents, best first; fewer where fewer are candidates.

        query: a text, or what this searcher's `encode` made of one.
        mode: one of MODE_NAMES, or a Mode of your own, which brings its weights, depth and candidates.
        where: payload conditions. weights: of dense, sparse, multivector. depth: candidates that each
        list gives (by default INTERACTIVE_DEPTH where scores are summed, never fewer than k).
        fusion: "weighted" (raw scores) or "rrf" (ranks). preset: "m3", or "long" for long documents.
        candidates: "dense", "sparse" or "union"; by default the mode's own. feedback: search twice, the
        second time with the query that the best of the first make better; scores are then that one's.
        """
        chosen = self._mode(mode, k, weights, depth, preset, candidates)
        encoded = self.encode(query) if isinstance(query, str) else query
        for _ in range(_TRIES):
            with suppress(RowGone):
                return self._search(encoded, chosen, k, where, fusion, feedback)
        return self._search(encoded, chosen, k, where, fusion, feedback)

    def _search(
        self,
        encoded: Embedding,
        chosen: Mode,
        k: int,
        where: Filter | None,
        fusion: Fusion,
        feedback: Feedback | None,
    ) -> list[Hit]:
        """One try of `search`; RowGone where another client changed a candidate meanwhile."""
        if feedback is not None:
            encoded = feedback.revised(self.store, encoded, chosen, where, fusion)
        table = retrieve(self.store, encoded, [chosen], where)
        ranking = rank(table, chosen, k, fusion)
        shown = [signal for signal in query_signals(encoded) if signal in self.signals]
        complete(self.store, encoded, table, shown, ranking.positions)  # those too that the mode leaves out
        columns = (_known(table.scores[name][ranking.positions]) for name in SIGNALS)
        found = zip(ranking.scores.tolist(), *columns, self.store.documents(ranking.rows), strict=True)
        return [
            Hit(id, score, dense, sparse, multivector, _without_hash(payload))
            for score, dense, sparse, multivector, (id, payload) in found
        ]

    def explain(
        self, text: str, hit: Hit, query: Embedding | None = None, *, runners_up: int = 0
    ) -> Explanation:
        """Why a hit was found for a text; its payload must hold the text that was indexed.

        query: what `encode` made of the text, where it is at hand; else it is encoded for this hit.
        runners_up: passage tokens given for each query token besides the one most like it.
        Errors: TrichromeError where the document is no longer stored, or its text isn't the indexed one.
        """
        rows = self.store.rows_of([hit.id])
        if rows[0] < 0:
            raise TrichromeError(f"document {hit.id!r} is not in this store (any more)")
        passage = self.store.embeddings(rows).select(*self.signals)[0]
        encoded = self.encode(text) if query is None else query
        return explain(self.encoder, text, encoded, hit.content, passage, runners_up=runners_up)

    def weigh(self, text: str, query: Embedding) -> tuple[WeighedToken, ...]:
        """A query's tokens and what each weighs in its sparse output. query: what `encode` made of it."""
        return weigh(self.encoder, text, "query", query)

    def _mode(
        self,
        mode: str | Mode,
        k: int,
        weights: Sequence[float] | None,
        depth: int | None,
        preset: Preset,
        candidates: Candidates | None,
    ) -> Mode:
        if k < 1:
            raise TrichromeError(f"k must be at least 1, got {k}")
        if isinstance(mode, str):
            chosen = mode_named(mode, preset=preset, weights=weights, candidates=candidates)
            if depth is None:  # a list that is ranked by its own scores needs no more than is shown
                shown = len(chosen.sources) == 1 and chosen.sources == chosen.signals
                depth = k if shown else min(chosen.depth, INTERACTIVE_DEPTH)
            mode = replace(chosen, depth=depth)
        elif weights is not None or depth is not None or candidates is not None:
            raise TrichromeError("a Mode brings its own weights, depth and candidates: change them there")
        mode = replace(mode, depth=max(mode.depth, k))
        require_signals(mode, store_signals(self.store.manifest), "this store")
        require_signals(mode, self.encoder.signals, f"the encoder {self.encoder.name}")
        return mode


def searched_by(encoder: QueryEncoder) -> str:
    """The fingerprint of the indexes that an encoder can query: its own, or, of a query tower, that of the
    encoder whose queries it learnt (`Encoder.queries_of`)."""
    learnt_from: str | None = getattr(encoder, "queries_of", None)
    return learnt_from or encoder.fingerprint


def _known(scores: NDArray[np.float32]) -> list[float | None]:
    return [None if score != score else score for score in scores.tolist()]  # only NaN is not itself


def _without_hash(payload: Payload) -> Payload:
    return {name: value for name, value in payload.items() if name != HASH_FIELD}
