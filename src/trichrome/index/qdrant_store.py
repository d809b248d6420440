"""The store on a Qdrant server or cluster: one collection, reached through qdrant-client.

A document is a point, as `points` says. A batch is one upsert request, which a shard logs whole; one that is
larger than a request may be goes in several, and one for several shards is logged by each. So after an error,
or where this process was killed, part of the last batch may be stored: adding it again puts it right, for the
same points are written. What `add` and `delete` returned from is logged and applied by as many replicas as
write_consistency says; a server that is killed replays its log, but brings it to its disk every few seconds
only, so a machine that loses its power may lose the last of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings, MultiVector, Sparse
from trichrome.errors import RowGone, TrichromeError
from trichrome.extras import require
from trichrome.index.checks import check_batch, check_query, query_tokens
from trichrome.index.keys import hash_ids
from trichrome.index.points import (
    ID_FIELD,
    OVERSAMPLING,
    PAYLOAD_FIELD,
    SEARCH_EF,
    ascending,
    selection,
    token_count,
)
from trichrome.index.qdrant_address import Address
from trichrome.index.qdrant_calls import ask
from trichrome.index.qdrant_filters import to_models
from trichrome.index.store import Candidates, Filter, Manifest, no_embeddings
from trichrome.records import Payload

models: Any = require("qdrant_client.models", "cluster")

#: Numbers of one document's token vectors must be fewer: a limit of Qdrant's vector storage.
MAX_MULTIVECTOR = 1 << 20
#: Bytes of one request, under the 32 MiB that a server takes by default, and about what a number takes in it.
_REQUEST_BYTES, _NUMBER_BYTES = 16 << 20, 20
_PAGE = 1000  # documents asked for at once
_VECTORS_PAGE = 200  # documents asked for at once with their vectors
_OPTIMIZE_SECONDS = 3600.0


class QdrantStore:
    """A `Store` on a Qdrant server or cluster, or in the client's local mode. Create and open one through
    `trichrome.index`; any number of processes may have a server's collection open."""

    def __init__(self, address: Address, client: Any, manifest: Manifest) -> None:
        """The store of a collection that is there; `client` is closed by close."""
        self._address, self._manifest = address, manifest
        self._open: Any = client
        self._turn = RLock() if address.folder is not None else nullcontext()  # local mode knows no threads

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def _refuse_if_closed(self) -> None:
        if self._open is None:
            raise TrichromeError(f"{self._address.shown}: this store was closed; open it again")

    def _ask(self, failed: str, method: str, *given: Any, **named: Any) -> Any:
        """What a method of the client answers for this collection."""
        self._refuse_if_closed()
        call: Callable[..., Any] = getattr(self._open, method)
        with self._turn:
            return ask(self._address, failed, partial(call, self._address.collection, *given, **named))

    # changes

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        check_batch(self._manifest, ids, embeddings, payloads)
        self._check_sizes(ids, embeddings)
        keys = hash_ids(ids)
        self._check_collisions(ids, keys)
        for part in _requests(ids, keys, embeddings, payloads):
            self._ask(
                "the batch was not stored, or only in part; add it again to have it whole",
                "upsert",
                points=part,
                wait=True,
            )

    def delete(self, ids: Sequence[str]) -> int:
        rows = np.unique(self.rows_of(ids))
        keys = rows[rows >= 0].tolist()
        for start in range(0, len(keys), _PAGE):
            chosen = models.PointIdsList(points=keys[start : start + _PAGE])
            failed = "the documents were not deleted, or only in part; delete them again"
            self._ask(failed, "delete", points_selector=chosen, wait=True)
        return len(keys)

    def optimize(self) -> None:
        """Wait until the server has merged segments and built its graphs, an hour at most."""
        failed = "could not ask for the state of the collection"
        pause, until = 0.1, time.monotonic() + _OPTIMIZE_SECONDS
        while (info := self._ask(failed, "get_collection")).status != models.CollectionStatus.GREEN:
            wrong = getattr(info.optimizer_status, "error", None)
            if wrong or info.status == models.CollectionStatus.RED:
                raise TrichromeError(
                    f"{self._address.shown}: the server could not optimize ({wrong or 'see its log'}); "
                    "everything stored is still there"
                )
            if info.status == models.CollectionStatus.GREY:  # after a restart it waits for a change
                config = models.OptimizersConfigDiff()
                self._ask("could not start optimizing", "update_collection", optimizers_config=config)
            if time.monotonic() > until:
                raise TrichromeError(
                    f"{self._address.shown}: the server still optimizes after {_OPTIMIZE_SECONDS:.0f} s; it "
                    "goes on by itself, and everything stored can be searched"
                )
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _check_sizes(self, ids: Sequence[str], embeddings: Embeddings) -> None:
        """Refuse, before anything is written, what no server takes."""
        if embeddings.multivector is None or not ids:
            return
        numbers = np.diff(embeddings.multivector.offsets) * embeddings.multivector.vectors.shape[1]
        if numbers.max() >= MAX_MULTIVECTOR:
            id, width = ids[int(numbers.argmax())], embeddings.multivector.vectors.shape[1]
            raise TrichromeError(
                f"document {id!r}: {numbers.max() // width} token vectors of width {width} are more than "
                f"Qdrant stores of one document (under {MAX_MULTIVECTOR:,} numbers); cut it into passages"
            )

    def _check_collisions(self, ids: Sequence[str], keys: NDArray[np.int64]) -> None:
        owners = dict(zip(keys.tolist(), ids, strict=True))
        if len(owners) < len(ids):
            raise TrichromeError(
                "two ids of one batch share a 63-bit hash, a rare accident; rename one of them"
            )
        for key, record in self._retrieve(keys, [ID_FIELD]).items():
            stored, given = record.payload[ID_FIELD], owners[key]
            if stored != given:
                raise TrichromeError(
                    f"ids {stored!r} and {given!r} share a 63-bit hash, a rare accident; rename one of them"
                )

    # reading

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        keys = hash_ids(ids)
        stored = {key: r.payload[ID_FIELD] for key, r in self._retrieve(keys, [ID_FIELD]).items()}
        return np.array(
            [key if stored.get(key) == id else -1 for id, key in zip(ids, keys.tolist(), strict=True)],
            dtype=np.int64,
        )

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [record.payload[ID_FIELD] for record in self._records(rows, [ID_FIELD])]

    def payloads(self, rows: NDArray[np.int64], fields: Sequence[str] | None = None) -> list[Payload]:
        return [record.payload.get(PAYLOAD_FIELD, {}) for record in self._records(rows, selection(fields))]

    def documents(self, rows: NDArray[np.int64]) -> list[tuple[str, Payload]]:
        payloads = (record.payload for record in self._records(rows, True))
        return [(payload[ID_FIELD], payload.get(PAYLOAD_FIELD, {})) for payload in payloads]

    def embeddings(self, rows: NDArray[np.int64]) -> Embeddings:
        vectors = [record.vector or {} for record in self._records(rows, False, vectors=True)]
        if not vectors:
            return no_embeddings(self._manifest)
        width, dtype = self._manifest.multivector_dim, self._manifest.multivector_dtype
        dense = sparse = multivector = None
        if self._manifest.dense_dim is not None:
            dense = np.array([v["dense"] for v in vectors], dtype=np.float32)
        if self._manifest.sparse:
            sparse = Sparse.from_rows([_sparse_row(v.get("sparse")) for v in vectors])
        if width is not None:
            tokens = (np.array(v.get("multivector", []), dtype=dtype) for v in vectors)
            multivector = MultiVector.from_rows([rows.reshape(-1, width) for rows in tokens], width)
        return Embeddings(dense, sparse, multivector)

    def _records(
        self, rows: NDArray[np.int64], payload: bool | list[str], vectors: bool = False
    ) -> list[Any]:
        records = self._retrieve(rows, payload, vectors)
        try:
            return [records[row] for row in rows.tolist()]
        except KeyError:
            raise RowGone("a row is not in this store; rows end with the document they stand for") from None

    def _retrieve(
        self, keys: NDArray[np.int64], payload: bool | list[str], vectors: bool = False
    ) -> dict[int, Any]:
        """Key → record of the points that are there."""
        self._refuse_if_closed()
        page = _VECTORS_PAGE if vectors else _PAGE
        wanted = np.unique(keys).tolist()
        found: dict[int, Any] = {}
        for start in range(0, len(wanted), page):
            records = self._ask(
                "could not read documents",
                "retrieve",
                ids=wanted[start : start + page],
                with_payload=payload,
                with_vectors=vectors,
            )
            found |= {record.id: record for record in records}
        return found

    def count(self, where: Filter | None = None) -> int:
        return int(self._ask("could not count", "count", count_filter=to_models(where), exact=True).count)

    def scan(
        self, where: Filter | None = None, fields: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Payload]]:
        offset, only = None, to_models(where)
        while True:
            records, offset = self._ask(
                "could not read on through the documents",
                "scroll",
                scroll_filter=only,
                limit=_PAGE,
                offset=offset,
                with_payload=selection(fields),
                with_vectors=False,
            )
            for record in records:
                yield record.payload[ID_FIELD], record.payload.get(PAYLOAD_FIELD, {})
            if offset is None:
                return

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        self._refuse_if_closed()
        check_query(self._address.shown, self._manifest, signal, query, search=True)
        only = to_models(where)
        if k <= 0 or (signal == "sparse" and not len(query_tokens(query)[0])):
            return Candidates(np.empty(0, np.int64), np.empty(0, np.float32))
        params = models.SearchParams(
            hnsw_ef=max(2 * k, SEARCH_EF),
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING),
        )
        [(rows, scores)] = self._query([self._request(signal, query, int(k), only, params)])
        order = np.lexsort((rows, -scores))
        return Candidates(rows[order], scores[order])

    def scores(self, signal: str, query: Embedding, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.scores_of(query, {signal: rows})[signal]

    def scores_of(
        self, query: Embedding, rows: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, NDArray[np.float32]]:
        self._refuse_if_closed()
        requests, orders, asked = [], {}, []
        exact = models.SearchParams(exact=True)  # no graph, and no int8 copies
        for signal, of_signal in rows.items():
            check_query(self._address.shown, self._manifest, signal, query)
            wanted, place = ascending(of_signal)
            orders[signal] = (wanted, np.zeros(len(wanted), dtype=np.float32), place)
            if _tokens_of(signal, query) == 0:
                continue
            for start in range(0, len(wanted), _PAGE):
                keys = wanted[start : start + _PAGE].tolist()
                only = models.Filter(must=[models.HasIdCondition(has_id=keys)])
                requests.append(self._request(signal, query, len(keys), only, exact))
                asked.append(signal)
        for signal, (keys, values) in zip(asked, self._query(requests), strict=True):
            wanted, scores, _ = orders[signal]
            if signal == "multivector":
                values = values / np.float32(token_count(query))  # the engine sums over its tokens
            scores[np.searchsorted(wanted, keys)] = values  # not found: no token shared, or none there
        return {signal: scores[place] for signal, (_, scores, place) in orders.items()}

    def _request(self, signal: str, query: Embedding, k: int, only: Any, params: Any) -> Any:
        vector: Any
        if signal == "sparse":
            ids, weights = query_tokens(query)
            vector = models.SparseVector(indices=ids.tolist(), values=weights.tolist())
        else:
            vector = np.asarray(query.dense if signal == "dense" else query.multivector).tolist()
        return models.QueryRequest(
            query=models.NearestQuery(nearest=vector),
            using=signal,
            filter=only,
            params=None if self._address.folder is not None else params,  # local mode is exact, and says so
            limit=k,
            with_payload=False,
            with_vector=False,
        )

    def _query(self, requests: list[Any]) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Rows and the engine's scores for each request, in its order."""
        if not requests:
            return []
        answers = self._ask("could not search", "query_batch_points", requests=requests)
        return [
            (
                np.array([point.id for point in answer.points], np.int64),
                np.array([point.score for point in answer.points], np.float32),
            )
            for answer in answers
        ]

    def close(self) -> None:
        client, self._open = self._open, None
        if client is not None:
            with self._turn:
                client.close()

    def __enter__(self) -> QdrantStore:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _requests(
    ids: Sequence[str], keys: NDArray[np.int64], embeddings: Embeddings, payloads: Sequence[Payload]
) -> Iterator[list[Any]]:
    """The points of a batch, in pieces that one request takes."""
    part: list[Any] = []
    size = 0
    for i, key in enumerate(keys.tolist()):
        embedding = embeddings[i]
        bytes_of_one = len(json.dumps(payloads[i])) + _NUMBER_BYTES * _numbers(embedding)
        if part and size + bytes_of_one > _REQUEST_BYTES:
            yield part
            part, size = [], 0
        payload = {ID_FIELD: ids[i], PAYLOAD_FIELD: payloads[i]}
        part.append(models.PointStruct(id=key, vector=_vectors(embedding), payload=payload))
        size += bytes_of_one
    if part:
        yield part


def _numbers(embedding: Embedding) -> int:
    """The numbers of one document's outputs."""
    count = 0 if embedding.dense is None else embedding.dense.size
    count += 0 if embedding.token_ids is None else 2 * embedding.token_ids.size
    return count + (0 if embedding.multivector is None else embedding.multivector.size)


def _vectors(embedding: Embedding) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if embedding.dense is not None:
        vectors["dense"] = embedding.dense.tolist()
    if embedding.token_ids is not None and embedding.token_weights is not None and len(embedding.token_ids):
        ids, weights = embedding.token_ids.tolist(), embedding.token_weights.tolist()
        vectors["sparse"] = models.SparseVector(indices=ids, values=weights)
    if embedding.multivector is not None and len(embedding.multivector):  # the engine wants a token at least
        vectors["multivector"] = embedding.multivector.tolist()
    return vectors


def _sparse_row(vector: Any) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids, weights = (vector.indices, vector.values) if vector is not None else ([], [])
    return np.array(ids, dtype=np.int32), np.array(weights, dtype=np.float32)


def _tokens_of(signal: str, query: Embedding) -> int:
    """How many tokens a query has under a signal that scores tokens; 1 under dense."""
    if signal == "dense":
        return 1
    return token_count(query) if signal == "multivector" else len(query_tokens(query)[0])
