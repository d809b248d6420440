"""The passages that negatives are drawn from: in memory, or in a store."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings, MultiVector
from trichrome.errors import TrichromeError
from trichrome.index.maxsim import maxsim
from trichrome.index.sparse_kernel import accumulate, build_postings, pair_scores, top_k
from trichrome.search.searcher import QueryEncoder

Rows: TypeAlias = "NDArray[np.int64]"
Scores: TypeAlias = "NDArray[np.float32]"
#: Called as (what is being done, how many are done, of how many).
Progress: TypeAlias = Callable[[str, int, int], None]

#: Texts encoded between two reports of progress.
_CHUNK = 4096


class MiningEncoder(QueryEncoder, Protocol):
    """What mining uses of an encoder."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]: ...


class Pool(Protocol):
    """Passages by row number. lang: only the passages of that language, all where None."""

    def rows(self, lang: str | None) -> Rows:
        """Every row, in an order that is the same whenever the passages are."""

    def texts(self, rows: Rows) -> list[str]:
        """The passages' texts, as the encoder reads them."""

    def ids(self, rows: Rows) -> list[str | None]:
        """The passages' document ids, where they have one."""

    def rows_of(self, text: str, id: str | None) -> Rows:
        """The rows that hold this passage: of its document id, or else of exactly its text."""

    def with_keys(self, keys: Iterable[str]) -> Rows:
        """The rows known under one of these keys: "doc:ID" a document's, "row:ID" a training row's."""

    def same_text(self, rows: Rows, texts: Iterable[str]) -> NDArray[np.bool_]:
        """[n] which rows say the same as one of the texts: see `plain`."""

    def alike(self, rows: Rows, others: Rows) -> NDArray[np.bool_]:
        """[n] which rows are one of the others, or say the same as one."""

    def search(self, signal: str, queries: Embeddings, k: int, lang: str | None) -> list[Rows]:
        """For each query at most k rows, best first, by the dense or the sparse score."""

    def scores(self, signal: str, query: Embedding, rows: Rows) -> Scores:
        """[n] one query's scores under one signal."""

    def prepare(self, rows: Rows) -> None:
        """The texts, ids and scores of these rows [n] are asked for next: fetch together what is far away."""


def plain(text: str) -> str:
    """A text without what doesn't change its sense here: NFKC, lower case, white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def encode_texts(
    encoder: MiningEncoder, texts: Sequence[str], kind: str, outputs: Sequence[str], progress: Progress
) -> Embeddings:
    """All texts' outputs, multi-vectors in float16; texts of like length go together."""
    order = np.argsort([len(text) for text in texts], kind="stable")[::-1]  # the longest first
    parts = []
    for start in range(0, len(texts), _CHUNK):
        progress(f"encode {'queries' if kind == 'query' else 'passages'}", start, len(texts))
        chunk = [texts[i] for i in order[start : start + _CHUNK]]
        made = encoder.encode(chunk, kind=kind, outputs=tuple(outputs))
        if made.multivector is not None:
            vectors = made.multivector.vectors.astype(np.float16)
            made = Embeddings(made.dense, made.sparse, MultiVector(made.multivector.offsets, vectors))
        parts.append(made)
    progress(f"encode {'queries' if kind == 'query' else 'passages'}", len(texts), len(texts))
    return Embeddings.concatenate(parts)[np.argsort(order)] if parts else Embeddings()


@dataclass
class PassageTable:
    """Distinct passages, before they are encoded.

    texts: in order of first mention. langs: the languages each is mentioned in. doc_ids: its document id.
    keys: under which each row is known. candidate: whether it may be drawn; a positive that is no candidate
    is here only to be encoded once.
    """

    texts: list[str] = field(default_factory=list)
    langs: list[set[str | None]] = field(default_factory=list)
    doc_ids: list[str | None] = field(default_factory=list)
    candidate: list[bool] = field(default_factory=list)
    keys: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    place: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        text: str,
        lang: str | None = None,
        doc_id: str | None = None,
        row_id: str | None = None,
        candidate: bool = True,
    ) -> int:
        """The row of a passage, new or known; a blank text gets none (-1)."""
        if not text.strip():
            return -1
        row = self.place.setdefault(text, len(self.texts))
        if row == len(self.texts):
            self.texts.append(text)
            self.langs.append(set())
            self.doc_ids.append(None)
            self.candidate.append(False)
        self.langs[row].add(lang)
        self.candidate[row] |= candidate
        if doc_id is not None:
            self.doc_ids[row] = self.doc_ids[row] or doc_id
            self.keys[f"doc:{doc_id}"].append(row)
        if row_id is not None:
            self.keys[f"row:{row_id}"].append(row)
        return row


class MemoryPool:
    """Distinct passages, each encoded once, searched by matrix products and postings.

    device: where the products are computed.
    """

    def __init__(
        self, table: PassageTable, embeddings: Embeddings, device: str | torch.device = "cpu"
    ) -> None:
        if embeddings.signals and len(embeddings) != len(table.texts):
            raise ValueError(f"{len(embeddings)} encoded texts for {len(table.texts)} passages")
        self.table, self.embeddings, self.device = table, embeddings, torch.device(device)
        self._by_lang: dict[str | None, Rows] = {}
        keys: dict[str, int] = {}
        self._plain = np.array([keys.setdefault(plain(t), len(keys)) for t in table.texts], np.int64)
        self._plain_keys = keys
        self._part: _Part | None = None  # of the language searched last

    @classmethod
    def encode(
        cls,
        table: PassageTable,
        encoder: MiningEncoder | None,
        signals: Sequence[str],
        progress: Progress,
        device: str | torch.device = "cpu",
    ) -> MemoryPool:
        """Encode a table's texts, each once. No encoder is needed where no signal is."""
        if not signals:
            return cls(table, Embeddings(), device)
        if encoder is None:
            raise TrichromeError(f"mining by {', '.join(signals)} needs a model")
        return cls(table, encode_texts(encoder, table.texts, "passage", signals, progress), device)

    def rows(self, lang: str | None) -> Rows:
        if lang not in self._by_lang:
            table = self.table
            some = [
                i
                for i, langs in enumerate(table.langs)
                if table.candidate[i] and (lang is None or lang in langs)
            ]
            self._by_lang[lang] = np.array(some, np.int64)
        return self._by_lang[lang]

    def texts(self, rows: Rows) -> list[str]:
        return [self.table.texts[i] for i in rows.tolist()]

    def ids(self, rows: Rows) -> list[str | None]:
        return [self.table.doc_ids[i] for i in rows.tolist()]

    def rows_of(self, text: str, id: str | None) -> Rows:
        row = self.table.place.get(text)
        if row is not None:
            return np.array([row], np.int64)
        return self.with_keys([f"doc:{id}"]) if id is not None else np.empty(0, np.int64)

    def with_keys(self, keys: Iterable[str]) -> Rows:
        found = [row for key in keys for row in self.table.keys.get(key, ())]
        return np.array(found, np.int64)

    def same_text(self, rows: Rows, texts: Iterable[str]) -> NDArray[np.bool_]:
        known = [self._plain_keys[p] for p in map(plain, texts) if p in self._plain_keys]
        return np.isin(self._plain[rows], known)

    def alike(self, rows: Rows, others: Rows) -> NDArray[np.bool_]:
        return np.isin(self._plain[rows], self._plain[others])

    def search(self, signal: str, queries: Embeddings, k: int, lang: str | None) -> list[Rows]:
        rows = self.rows(lang)
        if not len(rows):
            return [rows] * len(queries)
        if self._part is None or self._part.lang != lang:
            self._part = _Part(lang, rows)
        return self._part.search(self.embeddings, signal, queries, k, self.device)

    def scores(self, signal: str, query: Embedding, rows: Rows) -> Scores:
        if signal == "dense":
            assert self.embeddings.dense is not None
            assert query.dense is not None
            return np.asarray(self.embeddings.dense[rows] @ query.dense, np.float32)
        if signal == "sparse":
            sparse = self.embeddings.sparse
            assert sparse is not None
            assert query.token_ids is not None
            assert query.token_weights is not None
            return np.asarray(
                pair_scores(
                    query.token_ids, query.token_weights, sparse.indptr, sparse.ids, sparse.weights, rows
                )
            )
        assert self.embeddings.multivector is not None
        assert query.multivector is not None
        vectors = self.embeddings.multivector
        return maxsim(query.multivector, [vectors.row(i) for i in rows.tolist()])

    def prepare(self, rows: Rows) -> None:
        """All of it is in memory."""


@dataclass
class _Part:
    """The passages of one language, laid out for search."""

    lang: str | None
    rows: Rows
    dense: torch.Tensor | None = None
    postings: Mapping[str, NDArray[np.generic]] | None = None

    def search(
        self, embeddings: Embeddings, signal: str, queries: Embeddings, k: int, device: torch.device
    ) -> list[Rows]:
        k = min(k, len(self.rows))
        return (
            self._dense(embeddings, queries, k, device)
            if signal == "dense"
            else self._sparse(embeddings, queries, k)
        )

    def _dense(self, embeddings: Embeddings, queries: Embeddings, k: int, device: torch.device) -> list[Rows]:
        assert embeddings.dense is not None
        assert queries.dense is not None
        if self.dense is None:
            self.dense = torch.from_numpy(np.asarray(embeddings.dense[self.rows], np.float32)).to(device)
        asked = torch.from_numpy(np.asarray(queries.dense, np.float32)).to(device)
        scores, places = (asked @ self.dense.T).topk(k)  # [B, N] → [B, k]
        ranked, at = scores.cpu().numpy(), places.cpu().numpy()
        order = np.lexsort((at, -ranked))  # equal scores by row
        return list(self.rows[np.take_along_axis(at, order, axis=1)])

    def _sparse(self, embeddings: Embeddings, queries: Embeddings, k: int) -> list[Rows]:
        assert embeddings.sparse is not None
        assert queries.sparse is not None
        if self.postings is None:
            part = embeddings.select("sparse")[self.rows].sparse
            assert part is not None
            self.postings = build_postings(part)
        allowed = np.ones(len(self.rows), np.bool_)
        found = []
        for i in range(len(queries)):
            ids, weights = queries.sparse.row(i)
            out = np.zeros(len(self.rows), np.float32)
            p = self.postings
            accumulate(ids, weights, p["terms"], p["starts"], p["texts"], p["weights"], out)
            found.append(self.rows[top_k(out, allowed, k, floor=0.0)])
        return found
