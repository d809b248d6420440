"""A store as the pool: an index made before serves for mining as it is, whatever its size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings
from trichrome.index.build import document_of
from trichrome.index.store import Filter, Store
from trichrome.negatives.pool import Rows, Scores, plain


class StorePool:
    """The documents of a store. Texts are read when they are needed; the latest stay in memory.

    Training rows have no keys here, so `row:` keys find nothing. A passage cut from a document (its payload
    names it under `document`) is known under that document's key too.
    """

    def __init__(self, store: Store, kept_texts: int = 50_000) -> None:
        self.store = store
        self._kept = kept_texts
        self._texts: dict[int, str] = {}
        self._plain: dict[int, str] = {}
        self._passages: dict[str, list[str]] | None = None
        self._rows: dict[str | None, Rows] = {}

    def rows(self, lang: str | None) -> Rows:
        if lang not in self._rows:
            ids = sorted(id for id, _ in self.store.scan(_where(lang), fields=["lang"]))
            self._rows[lang] = self.store.rows_of(ids)
        return self._rows[lang]

    def texts(self, rows: Rows) -> list[str]:
        if missing := [row for row in dict.fromkeys(rows.tolist()) if row not in self._texts]:
            if len(self._texts) + len(missing) > self._kept:
                self._texts.clear()
                self._plain.clear()
                missing = list(dict.fromkeys(rows.tolist()))
            payloads = self.store.payloads(np.array(missing, np.int64), ["text", "title"])
            for row, payload in zip(missing, payloads, strict=True):
                self._texts[row] = document_of("-", payload).content
        return [self._texts[row] for row in rows.tolist()]

    def ids(self, rows: Rows) -> list[str | None]:
        return list(self.store.ids(rows))

    def rows_of(self, text: str, id: str | None) -> Rows:
        if id is None:
            return np.empty(0, np.int64)
        rows = self.store.rows_of([id])
        return rows[rows >= 0]

    def with_keys(self, keys: Iterable[str]) -> Rows:
        documents = [key[4:] for key in keys if key.startswith("doc:")]
        known = [*documents, *(p for d in documents for p in self._passages_of(d))]
        if not known:
            return np.empty(0, np.int64)
        rows = self.store.rows_of(known)
        return rows[rows >= 0]

    def same_text(self, rows: Rows, texts: Iterable[str]) -> NDArray[np.bool_]:
        wanted = {plain(text) for text in texts}
        made = self.texts(rows)
        for row, text in zip(rows.tolist(), made, strict=True):
            if row not in self._plain:
                self._plain[row] = plain(text)
        return np.array([self._plain[row] in wanted for row in rows.tolist()], np.bool_)

    def alike(self, rows: Rows, others: Rows) -> NDArray[np.bool_]:
        if not len(others):
            return np.zeros(len(rows), np.bool_)
        return self.same_text(rows, self.texts(others))

    def search(self, signal: str, queries: Embeddings, k: int, lang: str | None) -> list[Rows]:
        where = _where(lang)
        return [self.store.search(signal, query, k, where).rows for query in queries]

    def scores(self, signal: str, query: Embedding, rows: Rows) -> Scores:
        return self.store.scores(signal, query, rows)

    def prepare(self, rows: Rows) -> None:
        """Read the texts at once, as far as they are kept: one call of the store instead of one a query."""
        self.texts(np.unique(rows)[: self._kept])

    def _passages_of(self, document: str) -> list[str]:
        """The ids of the passages that were cut from a document."""
        if self._passages is None:
            self._passages = {}
            for id, payload in self.store.scan(fields=["document"]):
                if "document" in payload:
                    self._passages.setdefault(str(payload["document"]), []).append(id)
        return self._passages.get(document, [])


def _where(lang: str | None) -> Filter | None:
    return None if lang is None else {"lang": lang}
