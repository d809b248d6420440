"""The store in PostgreSQL with pgvector; `postgres_server` creates and opens one.

A document is one row; a batch is one transaction. Dense vectors are stored as they come and searched through
an HNSW graph over half-precision copies, once `optimize` has built it. Sparse vectors are found through the
packed postings of `postgres_sparse`. Token vectors only score candidates: they are fetched and MaxSim is
computed here, which is several times as fast as in SQL.

Any number of clients may have a store open; each sees what the others' calls have returned from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import RowGone, TrichromeError
from trichrome.index import postgres_schema as schema
from trichrome.index import postgres_sparse
from trichrome.index.checks import check_batch, check_query, query_tokens
from trichrome.index.maxsim import maxsim
from trichrome.index.postgres_filters import to_sql
from trichrome.index.postgres_pool import Database, PostgresPlace
from trichrome.index.postgres_wire import (
    Raw,
    copy_stream,
    payload_json,
    read_dense,
    read_multivector,
    read_sparse,
    read_tokens,
    refuse_nul,
    sparse_vector,
    vector,
    vector_columns,
)
from trichrome.index.store import Candidates, Filter, Manifest, no_embeddings
from trichrome.records import Payload

#: Documents from which `optimize` builds a graph over the dense vectors; fewer are scanned in milliseconds.
GRAPH_FROM = 10_000
#: HNSW: with these, recall@10 ≥ 0.99 against exact search over 50,000 vectors of width 384.
_GRAPH = "m = 24, ef_construction = 128"
#: Candidates the graph search keeps: so many, or twice k for a long list; 1,000 is the most it can.
_SEARCH_EF, _MOST_EF = 128, 1000
#: Beyond k, candidates out of the graph that are scored again with the stored vectors.
_SPARE = 10
#: Kilobytes that building the graph may take at most, and of them for each value of a vector.
_BUILD_MEMORY = 2 << 20
_PAGE = 1000  # documents fetched at once by scan
_SCORED_AT_ONCE = 500  # documents whose token vectors are in memory together


class PostgresStore:
    """A `Store` in PostgreSQL. Create and open one through `trichrome.index`."""

    def __init__(self, place: PostgresPlace, manifest: Manifest, token_type: int) -> None:
        """token_type: the number that the server gave to the type of the token vectors."""
        self._place, self._manifest, self._token_type = place, manifest, token_type
        self._schema = schema.quoted(place.index)
        self._documents = f"{self._schema}.documents"
        self._columns = [
            name
            for name, there in (
                ("dense", manifest.dense_dim is not None),
                ("sparse", manifest.sparse),
                ("tokens", manifest.multivector_dim is not None),
            )
            if there
        ]
        self._database = Database(place)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    # changes

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        self._check_open()
        check_batch(self._manifest, ids, embeddings, payloads)
        if not ids:
            return
        for id in ids:
            refuse_nul(id, "its id", id)
        texts = [payload_json(id, payload) for id, payload in zip(ids, payloads, strict=True)]
        keys = [_key(id) for id in ids]
        vectors = vector_columns(ids, embeddings, self._manifest.multivector_dtype, self._token_type)
        values = [
            (key.bytes, id.encode(), text, *columns)
            for key, id, text, columns in zip(keys, ids, texts, vectors, strict=True)
        ]
        values.sort(
            key=lambda row: row[0]
        )  # clients that add the same documents wait, instead of deadlocking
        stream = list(copy_stream(values))
        delete = f"DELETE FROM {self._documents} WHERE key = ANY(%s)".encode()
        names = ", ".join(["key", "id", "payload", *self._columns])
        copy = f"COPY {self._documents} ({names}) FROM STDIN (FORMAT BINARY)".encode()

        def work(connection: Connection[Any]) -> None:
            with connection.transaction():
                self._begin_change(connection)
                connection.execute(delete, [sorted(keys, key=lambda key: key.bytes)])
                with connection.cursor().copy(copy) as into:
                    for piece in stream:
                        into.write(piece)

        self._database.run(work)

    def delete(self, ids: Sequence[str]) -> int:
        self._check_open()
        keys = sorted({_key(id) for id in ids}, key=lambda key: key.bytes)
        sql = f"DELETE FROM {self._documents} WHERE key = ANY(%s)".encode()
        deleted = 0

        def work(connection: Connection[Any]) -> None:
            nonlocal deleted
            with connection.transaction():
                self._begin_change(connection)
                # a try whose connection dropped at the commit may have deleted them already
                deleted = max(deleted, connection.execute(sql, [keys]).rowcount)

        if keys:
            self._database.run(work)
        return deleted

    def _begin_change(self, connection: Connection[Any]) -> None:
        """Make the commit wait for the disk, and hold the tables at the version that this code writes."""
        sql = f"""
            SELECT version, CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', true) END
            FROM {self._schema}.store FOR SHARE
        """
        row = connection.execute(sql.encode()).fetchone()
        if row is None or row[0] != schema.VERSION:
            raise TrichromeError(
                f"{self._place.shown}: the store was upgraded meanwhile; nothing of this change is stored; "
                "upgrade trichrome and open the store again"
            )

    def optimize(self) -> None:
        """Build the graph where there are enough dense vectors, bring the postings up to date, and vacuum.

        While the graph is built, the first time, changes wait; searches do not."""
        self._check_open()
        if self._manifest.dense_dim is not None:
            self._database.run(self._build_graph)
        if self._manifest.sparse:
            self._database.run(lambda connection: postgres_sparse.build(connection, self._schema))
        self._database.run(lambda c: c.execute(f"VACUUM (ANALYZE) {self._documents}".encode()))

    def _build_graph(self, connection: Connection[Any]) -> None:
        width = self._manifest.dense_dim or 0
        sql = f"SELECT to_regclass(%s), (SELECT count(*) FROM {self._documents})"
        row = connection.execute(sql.encode(), [f"{self._schema}.documents_dense"]).fetchone()
        assert row is not None
        graph, count = row
        if graph is not None or count < GRAPH_FROM:
            return
        kilobytes = min(_BUILD_MEMORY, max(1 << 16, count * (2 * width + 1000) // 1024))
        with connection.transaction():
            connection.execute(f"SET LOCAL maintenance_work_mem = '{kilobytes}kB'".encode())
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS documents_dense ON {self._documents} "
                f"USING hnsw ((dense::halfvec({width})) halfvec_ip_ops) WITH ({_GRAPH})".encode()
            )

    # reading

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        keys = [_key(id) for id in ids]
        found = dict(
            self._ask(f"SELECT key, row_id FROM {self._documents} WHERE key = ANY(%(keys)s)", keys=keys)
        )
        return np.array([found.get(key, -1) for key in keys], dtype=np.int64)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [row[0] for row in self._of(rows, "id")]

    def payloads(self, rows: NDArray[np.int64], fields: Sequence[str] | None = None) -> list[Payload]:
        return [row[0] for row in self._of(rows, _selected(fields), fields=list(fields or []))]

    def documents(self, rows: NDArray[np.int64]) -> list[tuple[str, Payload]]:
        return [(id, payload) for id, payload in self._of(rows, "id, payload")]

    def embeddings(self, rows: NDArray[np.int64]) -> Embeddings:
        width, dtype = self._manifest.multivector_dim, self._manifest.multivector_dtype
        parts = []
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            some = self._of(rows[start : start + _SCORED_AT_ONCE], ", ".join(self._columns), binary=True)
            column = dict(zip(self._columns, zip(*some, strict=True), strict=True))
            parts.append(
                Embeddings(
                    read_dense(column["dense"], self._manifest.dense_dim or 0) if "dense" in column else None,
                    read_sparse(column["sparse"]) if "sparse" in column else None,
                    None if width is None else read_multivector(column["tokens"], width, dtype),
                )
            )
        if not parts:
            self._check_open()
            return no_embeddings(self._manifest)
        return Embeddings.concatenate(parts)

    def count(self, where: Filter | None = None) -> int:
        condition, paths = to_sql(where)
        [(count,)] = self._ask(f"SELECT count(*) FROM {self._documents} WHERE {condition}", **paths)
        return int(count)

    def scan(
        self, where: Filter | None = None, fields: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Payload]]:
        condition, paths = to_sql(where)
        sql = (
            f"SELECT row_id, id, {_selected(fields)} FROM {self._documents} "
            f"WHERE row_id > %(after)s AND {condition} ORDER BY row_id LIMIT {_PAGE}"
        )
        after = -1
        while page := self._ask(sql, after=after, fields=list(fields or []), **paths):
            after = page[-1][0]
            for _, id, payload in page:
                yield id, payload

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        self._check_open()
        check_query(self._place.shown, self._manifest, signal, query, search=True)
        condition, paths = to_sql(where)
        if k <= 0:
            found: list[tuple[int, float]] = []
        elif signal == "sparse":
            ids, weights = query_tokens(query)
            found = self._database.run(
                lambda connection: postgres_sparse.search(
                    connection, self._schema, ids, weights, k, condition if where else None, paths
                )
            )
        else:
            found = self._search_dense(np.asarray(query.dense, np.float32), k, condition, paths)
        rows = np.array([row for row, _ in found], np.int64)
        scores = np.array([score for _, score in found], np.float32)
        order = np.lexsort((rows, -scores))
        return Candidates(rows[order], scores[order])

    def _search_dense(
        self, query: NDArray[np.float32], k: int, condition: str, paths: Mapping[str, str]
    ) -> list[tuple[int, float]]:
        """Through the graph where the planner finds one and finds it cheaper; where it gives fewer than k, by
        a scan, which knows whether there are more."""
        half = f"halfvec({len(query)})"
        near = f"""
            SELECT row_id, -(dense <#> %(query)s::vector) AS score FROM (
                SELECT row_id, dense FROM {self._documents} WHERE {condition}
                ORDER BY dense::{half} <#> %(half)s::{half} LIMIT {k + _SPARE}
            ) AS near ORDER BY score DESC, row_id LIMIT {k}
        """
        scan = f"""
            SELECT row_id, -(dense <#> %(query)s::vector) AS score FROM {self._documents}
            WHERE {condition} ORDER BY score DESC, row_id LIMIT {k}
        """
        settings = {
            "hnsw.ef_search": str(min(_MOST_EF, max(2 * k, _SEARCH_EF))),
            "hnsw.iterative_scan": "relaxed_order",
            "jit": "off",
        }
        values = {"query": Raw(vector(query)), "half": Raw(vector(query, "float16")), **paths}

        def work(connection: Connection[Any]) -> list[tuple[int, float]]:
            with connection.pipeline():  # one way there and back
                with connection.transaction():
                    set_here = ", ".join("set_config(%s, %s, true)" for _ in settings)
                    pairs = [text for pair in settings.items() for text in pair]
                    connection.execute(f"SELECT {set_here}".encode(), pairs)
                    cursor = connection.execute(near.encode(), values)
                found = cursor.fetchall()
            if len(found) < k:
                found = connection.execute(scan.encode(), values).fetchall()
            return [(int(row), float(score)) for row, score in found]

        return self._database.run(work)

    def scores(self, signal: str, query: Embedding, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        self._check_open()
        check_query(self._place.shown, self._manifest, signal, query)
        unique, place = np.unique(rows, return_inverse=True)
        made = np.zeros(len(unique), np.float32)
        if signal == "multivector":
            assert query.multivector is not None
            assert self._manifest.multivector_dim is not None
            shape = self._manifest.multivector_dim, self._manifest.multivector_dtype
            for start in range(0, len(unique) if len(query.multivector) else 0, _SCORED_AT_ONCE):
                some = unique[start : start + _SCORED_AT_ONCE]
                tokens = read_tokens([row[0] for row in self._of(some, "tokens", binary=True)], *shape)
                made[start : start + len(some)] = maxsim(np.asarray(query.multivector), tokens)
        elif len(unique):
            if signal == "dense":
                operand, kind = vector(np.asarray(query.dense)), "vector"
            else:
                operand, kind = sparse_vector(*query_tokens(query)), "sparsevec"
            column = f"-({signal} <#> %(query)s::{kind})"
            made[:] = [row[0] for row in self._of(unique, column, query=Raw(operand))]
        return made[place]

    def scores_of(
        self, query: Embedding, rows: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, NDArray[np.float32]]:
        self._check_open()
        return {signal: self.scores(signal, query, of_signal) for signal, of_signal in rows.items()}

    def _of(
        self, rows: NDArray[np.int64], columns: str, binary: bool = False, **parameters: Any
    ) -> list[tuple[Any, ...]]:
        """Columns of rows, in the order given."""
        sql = f"SELECT row_id, {columns} FROM {self._documents} WHERE row_id = ANY(%(rows)s::bigint[])"
        wanted = rows.tolist()
        found = {row: rest for row, *rest in self._ask(sql, binary, rows=wanted, **parameters)}
        try:
            return [tuple(found[row]) for row in wanted]
        except KeyError:
            raise RowGone(
                f"{self._place.shown}: a row is not in this store; rows end with the document they stand for"
            ) from None

    def _ask(self, sql: str, binary: bool = False, /, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows that one statement gives."""
        self._check_open()
        return self._database.run(
            lambda connection: connection.execute(sql.encode(), parameters, binary=binary).fetchall()
        )

    def _check_open(self) -> None:
        self._database.check_open()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _key(id: str) -> UUID:
    """What finds a document by its id, which may be too long for an index."""
    return UUID(bytes=hashlib.blake2b(id.encode(), digest_size=16).digest())


def _selected(fields: Sequence[str] | None) -> str:
    """The payload, or an object of these top-level keys of it."""
    if fields is None:
        return "payload"
    pairs = "FROM jsonb_each(payload) AS pair(name, value) WHERE name = ANY(%(fields)s)"
    return f"coalesce((SELECT jsonb_object_agg(name, value) {pairs}), '{{}}') AS payload"
