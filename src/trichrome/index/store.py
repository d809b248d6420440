"""Store: what every index can do. Two implementations here pass one contract suite: exact and embedded.

A store holds documents: an id, the three outputs of the encoder (any may be absent), and a payload of JSON
values. It acknowledges a batch by returning from `add` or `delete`; from then on no crash loses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings
from trichrome.records import JSON, Payload

#: Payload conditions that must all hold. A value means equality, a list means any of its values, and a
#: mapping of "gt", "gte", "lt", "lte" to numbers means a range. Keys reach into objects with dots.
Filter: TypeAlias = "Mapping[str, JSON]"


@dataclass(frozen=True)
class Manifest:
    """What a store was built with, kept beside its data.

    model: the encoder's name. fingerprint: the hash of its weights and settings; a query that another
    model encoded is refused. dense_dim, multivector_dim: widths, or None where the output is absent.
    sparse: whether sparse vectors are stored. settings: how documents were cut and encoded, free to read.
    version: of the layout on disk. kind: "exact" or "embedded".
    """

    kind: str
    model: str
    fingerprint: str
    dense_dim: int | None
    sparse: bool
    multivector_dim: int | None
    multivector_dtype: str = "float16"
    settings: Mapping[str, JSON] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True)
class Candidates:
    """Documents of one store, best first. rows: the store's own keys [n], cheap to hand back to it;
    scores: [n] float32."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@runtime_checkable
class Store(Protocol):
    """An index of documents under three signals.

    Rows are the store's integer keys of documents, stable while the document is stored; they never leave
    the index and search rooms.
    """

    @property
    def manifest(self) -> Manifest: ...

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        """Insert or replace documents; durable when it returns, whole or not at all."""

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents, durable when it returns; the number that were there. Unknown ids are ignored."""

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """[n] rows, -1 where an id is not stored."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of rows."""

    def payloads(self, rows: NDArray[np.int64]) -> list[Payload]:
        """The payloads of rows."""

    def embeddings(self, rows: NDArray[np.int64]) -> Embeddings:
        """The stored outputs of rows."""

    def count(self, where: Filter | None = None) -> int:
        """How many documents (that a filter lets through)."""

    def scan(self, where: Filter | None = None) -> Iterator[tuple[str, Payload]]:
        """Every id and payload, in no particular order."""

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        """The k best documents by the dense or the sparse score (documents that share no token with the
        query are not sparse candidates)."""

    def scores(self, signal: str, query: Embedding, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n] the dense, sparse or multivector score of the query against each of these rows, exact as far
        as the stored precision goes."""

    def optimize(self) -> None:
        """Build or compact whatever makes search fast; results stay the same within the engine's recall."""

    def close(self) -> None:
        """Release files and locks; a closed store refuses further calls."""

    def __enter__(self) -> Store: ...

    def __exit__(self, *error: Any) -> None: ...
