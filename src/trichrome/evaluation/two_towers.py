"""Queries by one encoder and documents by another, as one that can be evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from trichrome.embeddings import Embeddings
from trichrome.errors import ModelMismatch
from trichrome.search.explain import TokenSpans
from trichrome.search.searcher import QueryEncoder, searched_by


class DocumentEncoder(QueryEncoder, Protocol):
    """What is used of the documents' encoder."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]: ...


class TwoTowers:
    """A query tower, and the encoder whose documents it searches.

    ModelMismatch where the tower learnt another encoder's queries.
    """

    def __init__(self, queries: QueryEncoder, documents: DocumentEncoder) -> None:
        if searched_by(queries) != documents.fingerprint:
            raise ModelMismatch(
                f"{queries.name!r} does not search what {documents.name!r} encoded: it learnt the queries of "
                f"{searched_by(queries):.12}, not of {documents.fingerprint:.12}"
            )
        self.queries, self.documents = queries, documents
        self.name = f"{queries.name} on documents of {documents.name}"
        self.signals = tuple(s for s in documents.signals if s in queries.signals)
        both = f"{queries.fingerprint} {documents.fingerprint}"
        self.fingerprint = hashlib.sha256(both.encode()).hexdigest()

    def of(self, kind: str) -> QueryEncoder:
        """Which of the two encodes texts of a kind."""
        return self.queries if kind == "query" else self.documents

    def encode(
        self, texts: Sequence[str], kind: str = "passage", outputs: Sequence[str] | None = None
    ) -> Embeddings:
        """Queries by the one, passages by the other."""
        return self.of(kind).encode(texts, kind, tuple(outputs or self.signals))

    def token(self, token_id: int) -> str:
        """The vocabulary's spelling of a token id."""
        return self.documents.token(token_id)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """By the documents' encoder."""
        return self.documents.token_ids(texts)

    def token_spans(self, text: str, kind: str = "passage") -> TokenSpans:
        """The token and the characters behind each row of a text's multi-vector output."""
        return self.of(kind).token_spans(text, kind)
