"""Exact sparse search in PostgreSQL over packed postings.

A segment is a range of row_id; its postings are, for each token id, the documents of the range that have it
(row_id - segment, int32, ascending) and their weights (float32), both little-endian in one bytea. A row_id
never gets other content, so that postings never change: what was deleted or replaced is left out when the
best are looked up in the table, and goes for good when the segment is built anew.

A search fetches the postings of the query's tokens, adds them up here, and scans in SQL the documents behind
the last segment, which `build` has not packed yet. (Measured on 50,000 passages: see docs/servers.md.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from trichrome.embeddings import Floats, Ints, Sparse
from trichrome.index.postgres_wire import Raw, copy_stream, read_sparse, sparse_vector
from trichrome.index.sparse_kernel import accumulate, build_postings, top_k

#: Documents of a segment: bounds what building one takes to a few hundred MB.
SEGMENT = 1 << 17
#: A segment is built anew where more than so much of it is gone.
_DEAD = 0.3
#: Documents behind the last segment that are not worth building one.
TAIL = 1000
#: So many times k candidates are looked up first; then eight times as many, until enough are found.
_FIRST, _MORE = 2, 8


@dataclass(frozen=True)
class Segment:
    """A range of row_id. first, last: its ends. documents: packed in it. live: of them still stored."""

    first: int
    last: int
    documents: int
    live: int


def search(
    connection: Connection[Any],
    schema: str,
    ids: Ints,
    weights: Floats,
    k: int,
    condition: str | None,
    paths: Mapping[str, str],
) -> list[tuple[int, float]]:
    """(row_id, score) of the k best documents with a score above 0 that a condition lets through, unordered.

    schema: quoted. condition: SQL over the table documents with the parameters `paths`; None for all.
    """
    ids, weights = np.asarray(ids, np.int32), np.asarray(weights, np.float32)
    if not len(ids):
        return []
    with connection.pipeline(), connection.transaction():  # two ways there and back
        connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(b"SELECT set_config('jit', 'off', true)")
        cursor = connection.execute(
            f"""SELECT segment, last, token, postings.documents, weights
                FROM {schema}.segments LEFT JOIN {schema}.postings USING (segment)
                WHERE token = ANY(%(tokens)s::integer[])""".encode(),
            {"tokens": ids.tolist()},
            binary=True,
        )
        tail = connection.execute(
            f"""SELECT row_id, score FROM (
                    SELECT row_id, -(sparse <#> %(query)s::sparsevec) AS score FROM {schema}.documents
                    WHERE row_id > (SELECT coalesce(max(last), -1) FROM {schema}.segments)
                        AND {condition or "true"}
                ) AS scored WHERE score > 0 ORDER BY score DESC, row_id LIMIT {k}""".encode(),
            {"query": Raw(sparse_vector(ids, weights)), **paths},
        )
        rows, scores = _add_up(cursor.fetchall(), ids.astype(np.int32), weights)
        found = _best_stored(connection, schema, rows, scores, k, condition, paths)
        found += [(int(row), float(score)) for row, score in tail.fetchall()]
    return sorted(found, key=lambda item: (-item[1], item[0]))[:k]


def _add_up(
    postings: list[tuple[int, int, int, bytes, bytes]], ids: NDArray[np.int32], weights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """row_ids that share a token with the query, and their scores."""
    by_segment: dict[tuple[int, int], dict[int, tuple[bytes, bytes]]] = {}
    for segment, last, token, documents, values in postings:
        by_segment.setdefault((segment, last), {})[token] = documents, values
    rows, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for (segment, last), of_segment in sorted(by_segment.items()):
        terms = np.array(sorted(of_segment), np.int32)
        starts = np.zeros(len(terms) + 1, np.int64)
        np.cumsum([len(of_segment[term][0]) // 4 for term in terms.tolist()], out=starts[1:])
        texts = np.frombuffer(b"".join(of_segment[term][0] for term in terms.tolist()), "<i4")
        heights = np.frombuffer(b"".join(of_segment[term][1] for term in terms.tolist()), "<f4")
        total = np.zeros(last - segment + 1, np.float32)
        accumulate(ids, weights, terms, starts, texts, heights, total)
        above = np.flatnonzero(total > 0)
        rows.append(segment + above)
        scores.append(total[above])
    return np.concatenate(rows), np.concatenate(scores)


def _best_stored(
    connection: Connection[Any],
    schema: str,
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    k: int,
    condition: str | None,
    paths: Mapping[str, str],
) -> list[tuple[int, float]]:
    """The k best of these documents that are still stored and that a condition lets through."""
    found: list[tuple[int, float]] = []
    start, end = 0, min(_FIRST * k, len(rows))
    sql = f"""SELECT row_id FROM {schema}.documents
        WHERE row_id = ANY(%(rows)s::bigint[]) AND {condition or "true"}""".encode()
    while start < end:
        order = top_k(scores, np.ones(len(rows), np.bool_), end)[start:]
        asked = rows[order].tolist()
        stored = {row for (row,) in connection.execute(sql, {"rows": asked, **paths}).fetchall()}
        best = zip(asked, scores[order].tolist(), strict=True)
        found += [(row, score) for row, score in best if row in stored]
        if len(found) >= k:
            break
        start, end = end, min(_MORE * end, len(rows))
    return found[:k]


def build(connection: Connection[Any], schema: str) -> None:
    """Pack what is not packed yet, and pack anew what has lost many documents; each segment at once or not
    at all. Changes and searches go on meanwhile."""
    with connection.transaction():
        connection.execute(f"LOCK TABLE {schema}.documents IN SHARE MODE".encode())  # once every change ended
        newest = _number(connection, f"SELECT coalesce(max(row_id), -1) FROM {schema}.documents")
    while _build_next(connection, schema, newest):
        pass


def _build_next(connection: Connection[Any], schema: str, newest: int) -> bool:
    """Build one segment that is due; whether there was one. newest: no document up to it can still come."""
    with connection.transaction():
        connection.execute(
            f"LOCK TABLE {schema}.segments IN SHARE ROW EXCLUSIVE MODE".encode()
        )  # one builder
        segments = _segments(connection, schema)
        packed = segments[-1].last if segments else -1
        worn = [s for s in segments if s.live < (1 - _DEAD) * s.documents]
        tail = _number(
            connection,
            f"SELECT count(*) FROM {schema}.documents WHERE row_id > {packed} AND row_id <= {newest}",
        )
        if worn:
            replaced, first, last = worn[:1], worn[0].first, worn[0].last
        elif tail >= TAIL or (tail and not segments):
            # small segments before it are taken along, so that there are never many
            replaced, size = [], tail
            while segments and size + segments[-1].live <= SEGMENT and segments[-1].live <= 2 * size:
                replaced.append(segments.pop())
                size += replaced[-1].live
            first, last = (replaced[-1].first if replaced else packed + 1), newest
        else:
            return False
        for segment in replaced:
            connection.execute(f"DELETE FROM {schema}.segments WHERE segment = {segment.first}".encode())
        _pack(connection, schema, first, last)
        return True


def _pack(connection: Connection[Any], schema: str, first: int, last: int) -> None:
    """Write the segment that begins with row_id `first`: up to `last`, or fewer where there are too many."""
    rows = connection.execute(
        f"""SELECT row_id, sparse FROM {schema}.documents WHERE row_id BETWEEN {first} AND {last}
            ORDER BY row_id LIMIT {SEGMENT}""".encode(),
        binary=True,
    ).fetchall()
    if len(rows) == SEGMENT:
        last = rows[-1][0]
    connection.execute(f"INSERT INTO {schema}.segments VALUES ({first}, {last}, {len(rows)})".encode())
    if not rows:
        return
    row_ids = np.array([row for row, _ in rows], np.int64)
    sparse: Sparse = read_sparse([vector for _, vector in rows])
    del rows
    packed = build_postings(sparse)
    offsets = (row_ids - first).astype("<i4")[packed["texts"]]
    weights = packed["weights"].astype("<f4")
    terms, starts = packed["terms"].tolist(), packed["starts"].tolist()
    values = (
        (
            term.to_bytes(4, "big"),
            first.to_bytes(8, "big"),
            offsets[starts[i] : starts[i + 1]].tobytes(),
            weights[starts[i] : starts[i + 1]].tobytes(),
        )
        for i, term in enumerate(terms)
    )
    copy = f"COPY {schema}.postings (token, segment, documents, weights) FROM STDIN (FORMAT BINARY)"
    with connection.cursor().copy(copy.encode()) as into:
        for piece in copy_stream(values):
            into.write(piece)


def _segments(connection: Connection[Any], schema: str) -> list[Segment]:
    rows = connection.execute(
        f"""SELECT segment, last, documents,
                (SELECT count(*) FROM {schema}.documents WHERE row_id BETWEEN segment AND last)
            FROM {schema}.segments ORDER BY segment""".encode()
    ).fetchall()
    return [Segment(*row) for row in rows]


def _number(connection: Connection[Any], sql: str) -> int:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return int(row[0])
