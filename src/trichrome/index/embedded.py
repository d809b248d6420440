"""The embedded store, the default: Qdrant Edge inside this process, one shard in the folder `shard`.

A document is a point, as `points` says. `add` and `delete` are one entry of the engine's write-ahead log
each, flushed to disk before they return: after a crash the engine replays the log, so an entry counts whole
or not at all.

The engine writes through memory maps, where a full disk kills the process instead of raising; so room is
asked for before every change. (Opening needs none on a disk; on a file system in memory, such as tmpfs, the
engine's empty pages take room when read.)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import qdrant_edge as engine
from filelock import BaseFileLock
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings, Floats, Ints, MultiVector, Sparse
from trichrome.errors import TrichromeError
from trichrome.index.checks import check_batch, check_query, query_tokens
from trichrome.index.embedded_filters import to_engine
from trichrome.index.keys import hash_ids
from trichrome.index.points import (
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    ID_FIELD,
    INDEXED_FIELDS,
    OVERSAMPLING,
    PAYLOAD_FIELD,
    SEARCH_EF,
    ascending,
    field_path,
    selection,
    token_count,
)
from trichrome.index.store import Candidates, Filter, Manifest, no_embeddings
from trichrome.records import Payload

T = TypeVar("T")

_HNSW = engine.HnswIndexConfig(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=10_000)
#: The graph is walked over codes of the vectors, which stay in memory. int8: a quarter of the traffic, so
#: twice as fast to build and to search. The best are scored again with the stored vectors.
_CODES: dict[str, Any] = {
    "int8": engine.ScalarQuantizationConfig(engine.ScalarType.Int8, memory=engine.Memory.Cached),
    "binary": engine.BinaryQuantizationConfig(memory=engine.Memory.Cached),
    "float32": None,
}
#: How many times k rougher codes than int8 have scored again.
_ROUGHER = {"binary": 8.0}
#: Vectors that only score a few candidates are mapped, not read as a whole whenever a store is opened.
_MAPPED = engine.Memory.Cold
#: Multivectors only rerank: no graph over them.
_NO_HNSW = engine.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000)
_DTYPES = {
    "float16": engine.VectorStorageDatatype.Float16,
    "float32": engine.VectorStorageDatatype.Float32,
}
#: Free bytes that a change must leave: the log and the vector files grow by steps of 32 MiB each.
_RESERVE = 96 << 20
_PAGE = 1000  # documents fetched at once by scan


class EmbeddedStore:
    """A `Store` on Qdrant Edge. Create and open one through `trichrome.index`."""

    def __init__(self, path: Path, manifest: Manifest, lock: BaseFileLock) -> None:
        """Open the data under `path`; `lock` is held, and released by close."""
        self._path, self._manifest, self._lock = path, manifest, lock
        self._open: Any = _ask(
            f"{path}: the store is damaged; index it again",
            lambda: engine.EdgeShard.load(str(path / "shard")),
        )

    @staticmethod
    def create(path: Path, manifest: Manifest) -> None:
        """Write the data of an empty store under `path`."""
        vectors = {}
        if manifest.dense_dim is not None:
            vectors["dense"] = engine.EdgeVectorParams(
                manifest.dense_dim,
                engine.Distance.Dot,
                hnsw_config=_HNSW,
                quantization_config=_CODES[manifest.dense_search],
                memory=_MAPPED,
            )
        if manifest.multivector_dim is not None:
            vectors["multivector"] = engine.EdgeVectorParams(
                manifest.multivector_dim,
                engine.Distance.Dot,
                multivector_config=engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim),
                datatype=_DTYPES[manifest.multivector_dtype],
                hnsw_config=_NO_HNSW,
                memory=_MAPPED,
            )
        config = engine.EdgeConfig(
            vectors=vectors,
            sparse_vectors={"sparse": engine.EdgeSparseVectorParams()} if manifest.sparse else None,
            optimizers=engine.EdgeOptimizersConfig(default_segment_number=1),
        )
        if short := _shortage(path, 0):
            raise TrichromeError(f"{path.parent}: {short}; nothing was created; make room and run it again")
        (path / "shard").mkdir()
        shard = engine.EdgeShard.create(str(path / "shard"), config)
        for name in INDEXED_FIELDS:
            keyword = engine.PayloadSchemaType.Keyword
            shard.update(engine.UpdateOperation.create_field_index(field_path(name), keyword))
        shard.flush()
        shard.close()

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def _shard(self) -> Any:  # an EdgeShard, whose stubs know less than it takes (arrays) and gives
        if self._open is None:
            raise TrichromeError(f"{self._path}: this store was closed; open it again")
        return self._open

    # changes

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        shard = self._shard
        check_batch(self._manifest, ids, embeddings, payloads)
        if not ids:
            return
        keys = hash_ids(ids)
        self._check_collisions(ids, keys)
        self._check_room(4 * _nbytes(embeddings) + 4 * sum(len(str(payload)) for payload in payloads))
        points = [
            engine.Point(key, _vectors(embeddings[i]), {ID_FIELD: ids[i], PAYLOAD_FIELD: payloads[i]})
            for i, key in enumerate(keys.tolist())
        ]
        self._change(engine.UpdateOperation.upsert_points(points), shard)

    def delete(self, ids: Sequence[str]) -> int:
        rows = np.unique(self.rows_of(ids))
        keys = rows[rows >= 0].tolist()
        if keys:
            self._check_room(0)
            self._change(engine.UpdateOperation.delete_points(keys), self._shard)
        return len(keys)

    def optimize(self) -> None:
        """Merge segments and build the HNSW graph where there are enough vectors to be worth one."""
        files = (file for file in (self._path / "shard" / "segments").rglob("*") if file.is_file())
        self._check_room(sum(_allocated(file) for file in files))
        message = f"{self._path}: could not optimize; everything stored is still there"
        _ask(message, self._shard.optimize)
        _ask(message, self._shard.flush)

    def _change(self, operation: engine.UpdateOperation, shard: Any) -> None:
        message = f"{self._path}: the engine refused a change; what was stored before is still there"
        _ask(message, lambda: shard.update(operation))
        _ask(message, shard.flush)

    def _check_collisions(self, ids: Sequence[str], keys: NDArray[np.int64]) -> None:
        owners = dict(zip(keys.tolist(), ids, strict=True))
        if len(owners) < len(ids):
            raise TrichromeError(
                "two ids of one batch share a 63-bit hash, a rare accident; rename one of them"
            )
        for record in self._shard.retrieve(keys.tolist(), [ID_FIELD], False):
            stored, given = record.payload[ID_FIELD], owners[record.id]
            if stored != given:
                raise TrichromeError(
                    f"ids {stored!r} and {given!r} share a 63-bit hash, a rare accident; rename one of them"
                )

    def _check_room(self, needed: int) -> None:
        if short := _shortage(self._path, needed):
            raise TrichromeError(
                f"{self._path}: {short}; nothing of this change is stored, the {self.count()} documents "
                "stored before are; make room and run it again"
            )

    # reading

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        keys = hash_ids(ids)
        stored = {r.id: r.payload[ID_FIELD] for r in self._shard.retrieve(keys.tolist(), [ID_FIELD], False)}
        return np.array(
            [key if stored.get(key) == id else -1 for id, key in zip(ids, keys.tolist(), strict=True)],
            dtype=np.int64,
        )

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [record.payload[ID_FIELD] for record in self._records(rows, payload=[ID_FIELD])]

    def payloads(self, rows: NDArray[np.int64], fields: Sequence[str] | None = None) -> list[Payload]:
        records = self._records(rows, payload=selection(fields))
        return [record.payload.get(PAYLOAD_FIELD, {}) for record in records]

    def documents(self, rows: NDArray[np.int64]) -> list[tuple[str, Payload]]:
        payloads = (record.payload for record in self._records(rows, payload=True))
        return [(payload[ID_FIELD], payload.get(PAYLOAD_FIELD, {})) for payload in payloads]

    def embeddings(self, rows: NDArray[np.int64]) -> Embeddings:
        vectors = [record.vector for record in self._records(rows, payload=False, vectors=True)]
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
        records = {record.id: record for record in self._shard.retrieve(rows.tolist(), payload, vectors)}
        try:
            return [records[row] for row in rows.tolist()]
        except KeyError:
            raise TrichromeError(
                "a row is not in this store; rows end with the document they stand for"
            ) from None

    def count(self, where: Filter | None = None) -> int:
        return int(self._shard.count(engine.CountRequest(exact=True, filter=to_engine(where))))

    def scan(
        self, where: Filter | None = None, fields: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Payload]]:
        offset = None
        while True:
            records, offset = self._shard.scroll(
                engine.ScrollRequest(
                    offset=offset,
                    limit=_PAGE,
                    filter=to_engine(where),
                    with_payload=selection(fields),
                    with_vector=False,
                )
            )
            for record in records:
                yield record.payload[ID_FIELD], record.payload.get(PAYLOAD_FIELD, {})
            if offset is None:
                return

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        check_query(self._path, self._manifest, signal, query, search=True)
        if k <= 0:
            return Candidates(np.empty(0, np.int64), np.empty(0, np.float32))
        more = _ROUGHER.get(self._manifest.dense_search, OVERSAMPLING)
        params = engine.SearchParams(
            hnsw_ef=max(int(more * k), SEARCH_EF),
            quantization=engine.QuantizationSearchParams(rescore=True, oversampling=more),
        )
        rows, scores = _found(self._shard.query(_request(signal, query, k, to_engine(where), params)))
        order = np.lexsort((rows, -scores))
        return Candidates(rows[order], scores[order])

    def scores(self, signal: str, query: Embedding, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.scores_of(query, {signal: rows})[signal]

    def scores_of(
        self, query: Embedding, rows: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, NDArray[np.float32]]:
        shard, requests, orders = self._shard, {}, {}
        for signal, of_signal in rows.items():
            check_query(self._path, self._manifest, signal, query)
            wanted, place = orders[signal] = ascending(of_signal)
            if len(wanted) and not (signal == "multivector" and token_count(query) == 0):
                only = engine.Filter(must=[engine.HasIdCondition(set(wanted.tolist()))])
                requests[signal] = _request(signal, query, len(wanted), only, engine.SearchParams(exact=True))
        answers = shard.query_batch(engine.QueryBatchRequest(list(requests.values()))) if requests else []
        found = dict(zip(requests, answers, strict=True))
        made = {}
        for signal, (wanted, place) in orders.items():
            scores = np.zeros(len(wanted), dtype=np.float32)
            if signal in found:
                ids, values = _found(found[signal])
                if signal == "multivector":
                    values = values / np.float32(token_count(query))  # the engine sums over its tokens
                scores[np.searchsorted(wanted, ids)] = values  # not found: no token shared, or none there
            made[signal] = scores[place]
        return made

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        self._lock.release()

    def __enter__(self) -> EmbeddedStore:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _vectors(embedding: Embedding) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if embedding.dense is not None:
        vectors["dense"] = embedding.dense.tolist()  # the binding reads lists twice as fast as arrays
    if embedding.token_ids is not None and embedding.token_weights is not None:
        vectors["sparse"] = _sparse_vector(embedding.token_ids, embedding.token_weights)
    if embedding.multivector is not None and len(embedding.multivector):  # the engine wants a token at least
        vectors["multivector"] = embedding.multivector.tolist()
    return vectors


def _request(
    signal: str, query: Embedding, k: int, only: engine.Filter | None, params: engine.SearchParams
) -> engine.QueryRequest:
    vector: Any
    if signal == "sparse":
        vector = _sparse_vector(*query_tokens(query))
    else:
        vector = np.asarray(query.dense if signal == "dense" else query.multivector).tolist()
    return engine.QueryRequest(
        limit=k,
        query=engine.Query.Nearest(vector, signal),
        filter=only,
        params=params,
        with_payload=False,
        with_vector=False,
    )


def _found(points: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and the engine's scores, in its order."""
    return np.array([p.id for p in points], np.int64), np.array([p.score for p in points], np.float32)


def _sparse_vector(ids: Ints, weights: Floats) -> engine.SparseVector:
    return engine.SparseVector(ids.tolist(), weights.tolist())


def _sparse_row(vector: engine.SparseVector | None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids, weights = (vector.indices, vector.values) if vector is not None else ([], [])
    return np.array(ids, dtype=np.int32), np.array(weights, dtype=np.float32)


def _nbytes(embeddings: Embeddings) -> int:
    size = 0 if embeddings.dense is None else embeddings.dense.nbytes
    if embeddings.sparse is not None:
        size += 8 * len(embeddings.sparse.ids)
    return size + (4 * embeddings.multivector.vectors.size if embeddings.multivector is not None else 0)


def _allocated(file: Path) -> int:
    """Bytes on disk, where the system tells them: the engine's files begin as 32 MiB of nothing."""
    status = file.stat()
    return int(getattr(status, "st_blocks", status.st_size / 512) * 512)


def _shortage(path: Path, needed: int) -> str | None:
    """What is wrong if a change that needs so many bytes does not fit on the disk."""
    free, wanted = shutil.disk_usage(path).free, needed + _RESERVE
    return f"the disk is full ({free >> 20} MiB free, {wanted >> 20} wanted)" if free < wanted else None


def _ask(message: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as error:  # the engine raises no class of its own
        raise TrichromeError(f"{message} ({error})") from error
