"""Store: what every index can do. Four implementations pass one contract suite: exact, embedded, PostgreSQL
and Qdrant's server.

A store holds documents: an id, the three outputs of the encoder (any may be absent), and a payload of JSON
values. It acknowledges a batch by returning from `add` or `delete`; from then on no crash loses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings, MultiVector, Sparse
from trichrome.records import JSON, Payload

#: Payload conditions that must all hold. A value means equality, a list means any of its values, and a
#: mapping of "gt", "gte", "lt", "lte" to numbers means a range. Keys reach into objects with dots. The
#: module `filters` says exactly what matches.
Filter: TypeAlias = "Mapping[str, JSON]"

#: The layout on disk that this code writes and reads.
LAYOUT_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a store was built with, kept beside its data.

    model: the encoder's name. fingerprint: the hash of its weights and settings; a query that another
    model encoded is refused. dense_dim, multivector_dim: widths, or None where the output is absent.
    sparse: whether sparse vectors are stored. multivector_dtype: of the stored token vectors; not every kind
    has all (see `manifests`). settings: how documents were cut and encoded, free to read. dense_search: what
    dense search reads to find its candidates (see `codes`); float32 vectors, kept beside, score them.
    dense_dtype: of the stored dense vectors; pq keeps the codes of one quantiser alone (see `pq`), which then
    both find and score. sparse_search: how sparse search finds its documents: exact, or seismic, which
    misses a few (see `seismic`). version: of the layout on disk. kind: "exact", "embedded", "postgres" or
    "qdrant".
    """

    kind: str
    model: str
    fingerprint: str
    dense_dim: int | None
    sparse: bool
    multivector_dim: int | None
    multivector_dtype: str = "float16"
    settings: Mapping[str, JSON] = field(default_factory=dict)
    version: int = LAYOUT_VERSION
    dense_search: str = "float32"
    dense_dtype: str = "float32"
    sparse_search: str = "exact"

    @property
    def token_floats(self) -> str:
        """The dtype in which token vectors are handed out: float32 or float16."""
        return "float32" if self.multivector_dtype == "float32" else "float16"


def no_embeddings(manifest: Manifest) -> Embeddings:
    """Zero texts with the outputs that a store holds."""
    none = np.zeros(1, np.int64)
    return Embeddings(
        None if manifest.dense_dim is None else np.empty((0, manifest.dense_dim), np.float32),
        Sparse(none, np.empty(0, np.int32), np.empty(0, np.float32)) if manifest.sparse else None,
        None
        if manifest.multivector_dim is None
        else MultiVector(none, np.empty((0, manifest.multivector_dim), manifest.token_floats)),
    )


@dataclass(frozen=True)
class Candidates:
    """Documents of one store, best first. rows: the store's own keys [n], cheap to hand back to it;
    scores: [n] float32."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@runtime_checkable
class Store(Protocol):
    """An index of documents under three signals.

    Rows are the store's integer keys of documents, stable while the document is stored unchanged (replacing
    it may give it another); they never leave the index and search rooms. Calls that take rows want rows of
    stored documents and answer in the order given.
    """

    @property
    def manifest(self) -> Manifest: ...

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        """Insert or replace documents; durable when it returns, whole or not at all.

        The embeddings hold exactly the outputs that the manifest names. Raises TrichromeError, having
        written nothing, for a batch that is wrong (see `checks.check_batch`) or a full disk.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents, durable when it returns; the number that were there. Unknown ids are ignored."""

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """[n] rows, -1 where an id is not stored."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of rows."""

    def payloads(self, rows: NDArray[np.int64], fields: Sequence[str] | None = None) -> list[Payload]:
        """The payloads of rows; with `fields` only these top-level keys of them, where present."""

    def documents(self, rows: NDArray[np.int64]) -> list[tuple[str, Payload]]:
        """The ids and the whole payloads of rows, read at once."""

    def embeddings(self, rows: NDArray[np.int64]) -> Embeddings:
        """The stored outputs of rows."""

    def count(self, where: Filter | None = None) -> int:
        """How many documents (that a filter lets through)."""

    def scan(
        self, where: Filter | None = None, fields: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Payload]]:
        """Every id and payload (or only these top-level keys of it), in no particular order."""

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        """The k best documents by the dense or the sparse score, best first, equal scores by row.

        Documents that share no token with the query are not sparse candidates. Fewer than k come back
        where there are no more.
        """

    def scores(self, signal: str, query: Embedding, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n] the dense, sparse or multivector score of the query against each of these rows, exact as far
        as the stored precision goes. A query or a document without a token scores 0."""

    def scores_of(
        self, query: Embedding, rows: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, NDArray[np.float32]]:
        """signal → rows in, signal → the scores of those rows out: `scores` of several signals at once."""

    def optimize(self) -> None:
        """Build or compact whatever makes search fast; results stay the same within the engine's recall."""

    def close(self) -> None:
        """Release files and locks; a closed store refuses further calls."""

    def __enter__(self) -> Store: ...

    def __exit__(self, *error: Any) -> None: ...
