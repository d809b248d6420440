"""What every store promises, checked on every kind against brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from threading import Thread

import numpy as np
import pytest

from tests.index.places import KINDS
from tests.index.samples import (
    DIM,
    PACKED,
    TOKEN_DIM,
    TOLERANCE,
    assert_holds,
    assert_same,
    brute_scores,
    make_store,
    names,
    random_embeddings,
    token_tolerance,
)
from trichrome.embeddings import SIGNALS, Embedding, Embeddings, MultiVector, Sparse
from trichrome.errors import TrichromeError
from trichrome.index import Filter, Place, Store, open_store

N = 300
DOCUMENTS = random_embeddings(N, seed=1)
QUERIES = random_embeddings(20, seed=2)
PAYLOADS = [{"text": f"text {i}", "n": i, "lang": "en" if i % 3 else "sw"} for i in range(N)]


@pytest.fixture(params=(*KINDS, *PACKED))
def kind(request: pytest.FixtureRequest) -> str:
    """Every test here runs for all kinds of stores, compressed ones too."""
    return str(request.param)


@pytest.fixture
def store(kind: str, place: Place) -> Iterator[Store]:
    with make_store(place, kind) as made:
        yield made


@pytest.fixture
def full(store: Store) -> Store:
    """300 documents, added in batches."""
    for start in range(0, N, 70):
        part = slice(start, min(N, start + 70))
        store.add(names(N)[part], DOCUMENTS[part], PAYLOADS[part])
    return store


@pytest.fixture(params=["fresh", "optimized", "reopened", "merged after changes"])
def any_state(request: pytest.FixtureRequest, full: Store, place: Place) -> Iterator[Store]:
    """The same 300 documents by several ways."""
    if request.param == "optimized":
        full.optimize()
    if request.param == "merged after changes":
        full.add(names(60), random_embeddings(60, seed=3), PAYLOADS[:60])
        full.add(["other"], random_embeddings(1, seed=4), [{}])
        full.optimize()
        full.add(names(60), DOCUMENTS[:60], PAYLOADS[:60])
        full.delete(["other"])
        full.optimize()
    if request.param != "reopened":
        yield full
        return
    full.close()
    with open_store(place) as again:
        yield again


# what was added is there


def test_everything_added_comes_back(any_state: Store) -> None:
    assert_holds(any_state, names(N), DOCUMENTS, PAYLOADS)


def test_rows_are_answered_in_the_order_given(full: Store) -> None:
    order = np.random.default_rng(0).permutation(N)[:50]
    ids = [f"d{i}" for i in order]
    rows = full.rows_of(ids)
    assert full.ids(rows) == ids
    assert full.payloads(rows, ["n", "absent"]) == [{"n": int(i)} for i in order]
    assert_same(full.embeddings(rows), DOCUMENTS[order], token_tolerance(full))


def test_rows_of_one_document_may_be_asked_for_twice(full: Store) -> None:
    rows = full.rows_of(["d5", "d9", "d5"])
    assert full.ids(rows) == ["d5", "d9", "d5"]
    assert_same(full.embeddings(rows), DOCUMENTS[[5, 9, 5]], token_tolerance(full))
    scores = full.scores("dense", QUERIES[0], rows)
    assert scores[0] == pytest.approx(scores[2], abs=1e-6) != scores[1]


def test_unknown_ids_have_row_minus_one(full: Store) -> None:
    rows = full.rows_of(["nobody", "d3", "D3", ""])
    assert (rows == -1).tolist() == [True, False, True, True]
    assert full.rows_of([]).shape == (0,)


def test_a_row_that_was_never_there_is_an_error(full: Store) -> None:
    unknown = np.array([10**15 + 7])
    for call in (full.ids, full.payloads, full.documents, full.embeddings):
        with pytest.raises(TrichromeError, match="row is not in this store"):
            call(unknown)


def test_rows_of_unchanged_documents_stay(full: Store, place: Place) -> None:
    before = full.rows_of(names(N)[100:])
    full.add(names(50), random_embeddings(50, seed=5), PAYLOADS[:50])
    full.delete(names(50, start=50))
    full.optimize()
    assert full.rows_of(names(N)[100:]).tolist() == before.tolist()
    full.close()
    with open_store(place) as again:
        assert again.rows_of(names(N)[100:]).tolist() == before.tolist()


def test_an_update_replaces_vectors_and_payload(full: Store) -> None:
    changed, payloads = random_embeddings(100, seed=6), [{"new": i} for i in range(100)]
    full.add(names(100), changed, payloads)
    both = Embeddings.concatenate([changed, DOCUMENTS[100:]])
    assert_holds(full, names(N), both, payloads + PAYLOADS[100:])
    found = full.search("dense", changed[7], 1)
    assert full.ids(found.rows) == ["d7"]
    assert full.count({"n": 7}) == 0


def test_delete_counts_and_forgets(full: Store) -> None:
    assert full.delete(["d0", "d1", "nobody", "d1"]) == 2
    assert full.delete(["d0"]) == 0
    assert full.delete([]) == 0
    assert_holds(full, names(N - 2, start=2), DOCUMENTS[2:], PAYLOADS[2:])
    for signal in ("dense", "sparse"):
        assert not {"d0", "d1"} & set(full.ids(full.search(signal, DOCUMENTS[1], N).rows))
    full.add(["d1"], DOCUMENTS[1:2], [{"back": True}])
    assert full.payloads(full.rows_of(["d1"])) == [{"back": True}]


def test_an_empty_store_answers(store: Store) -> None:
    store.optimize()
    assert store.count() == 0
    assert list(store.scan()) == []
    assert store.rows_of(["d0"]).tolist() == [-1]
    none = np.empty(0, np.int64)
    assert store.ids(none) == []
    assert store.payloads(none) == []
    assert store.embeddings(none).signals == SIGNALS
    for signal in ("dense", "sparse"):
        found = store.search(signal, QUERIES[0], 5)
        assert len(found.rows) == len(found.scores) == 0
    for signal in SIGNALS:
        assert store.scores(signal, QUERIES[0], none).shape == (0,)
    store.add([], DOCUMENTS[:0], [])
    assert store.delete(["d0"]) == 0
    assert store.count() == 0


def test_every_document_may_go(full: Store, place: Place) -> None:
    assert full.delete(names(N)) == N
    full.optimize()
    full.close()
    with open_store(place) as again:
        assert again.count() == 0
        assert len(again.search("dense", QUERIES[0], 5).rows) == 0
        again.add(["d1"], DOCUMENTS[1:2], PAYLOADS[1:2])
        assert_holds(again, ["d1"], DOCUMENTS[1:2], PAYLOADS[1:2])


# unusual documents


def test_ids_and_payloads_of_any_script(store: Store, place: Place) -> None:
    ids = ["a/b c", "日本語", "é", "e\u0301", "🌙", "id\nwith\tspace", 'quo"te', "x" * 3000, "0", "-1"]
    payloads = [{"text": id * 2, "ключ.я": {"ü\"'": [id, 1, 1.5, None, True, {}, []]}} for id in ids]
    store.add(ids, DOCUMENTS[: len(ids)], payloads)
    assert_holds(store, ids, DOCUMENTS[: len(ids)], payloads)
    assert store.payloads(store.rows_of(ids), ["ключ.я"]) == [{"ключ.я": p["ключ.я"]} for p in payloads]
    store.close()
    with open_store(place) as again:
        assert_holds(again, ids, DOCUMENTS[: len(ids)], payloads)


def test_numbers_in_payloads_keep_type_and_value(store: Store) -> None:
    payload = {"i": 2**53 + 1, "low": -(2**63), "high": 2**63 - 1, "f": 0.1, "one": 1.0, "t": True, "z": 0}
    store.add(["x"], DOCUMENTS[:1], [payload])
    [back] = store.payloads(store.rows_of(["x"]))
    assert [(k, type(v), v) for k, v in sorted(back.items())] == [
        (k, type(v), v) for k, v in sorted(payload.items())
    ]


def test_documents_without_a_token(store: Store) -> None:
    bare = Embeddings(
        DOCUMENTS[:2].dense,
        Sparse.from_rows([(np.empty(0, np.int32), np.empty(0, np.float32))] * 2),
        MultiVector.from_rows([np.empty((0, TOKEN_DIM), np.float16)] * 2),
    )
    store.add(["a", "b"], bare, [{}, {}])
    assert_holds(store, ["a", "b"], bare, [{}, {}])
    query = QUERIES[0]
    assert len(store.search("sparse", query, 5).rows) == 0
    rows = store.rows_of(["a", "b"])
    assert store.scores("sparse", query, rows).tolist() == [0, 0]
    assert store.scores("multivector", query, rows).tolist() == [0, 0]
    store.optimize()
    assert_holds(store, ["a", "b"], bare, [{}, {}])


def test_an_update_may_lose_its_tokens(store: Store) -> None:
    store.add(["a"], DOCUMENTS[3:4], [{}])
    none = Embeddings(
        DOCUMENTS[:1].dense,
        Sparse.from_rows([(np.empty(0, np.int32), np.empty(0, np.float32))]),
        MultiVector.from_rows([np.empty((0, TOKEN_DIM), np.float16)]),
    )
    store.add(["a"], none, [{}])
    assert_holds(store, ["a"], none, [{}])


@pytest.mark.parametrize(
    "outputs",
    [("dense",), ("sparse",), ("dense", "sparse"), ("dense", "multivector"), ("sparse", "multivector")],
)
def test_outputs_may_be_absent(kind: str, place: Place, outputs: tuple[str, ...]) -> None:
    some = DOCUMENTS[:50].select(*outputs)
    shape = {
        "dense_dim": DIM if "dense" in outputs else None,
        "sparse": "sparse" in outputs,
        "multivector_dim": TOKEN_DIM if "multivector" in outputs else None,
    }
    with make_store(place, kind, **shape) as store:
        store.add(names(50), some, PAYLOADS[:50])
        store.optimize()
    with open_store(place) as store:
        assert_holds(store, names(50), some, PAYLOADS[:50])
        assert store.embeddings(np.empty(0, np.int64)).signals == outputs
        rows = store.rows_of(names(50))
        for signal in SIGNALS:
            if signal in outputs:
                wanted = brute_scores(signal, QUERIES[0], some)
                found = store.scores(signal, QUERIES[0], rows)
                np.testing.assert_allclose(found, wanted, atol=TOLERANCE[kind])
            else:
                with pytest.raises(TrichromeError, match=f".+: the store holds no {signal} output"):
                    store.scores(signal, QUERIES[0], rows)
                with pytest.raises(TrichromeError, match="rerank" if signal == "multivector" else "holds no"):
                    store.search(signal, QUERIES[0], 3)
        with pytest.raises(TrichromeError, match="the batch brings"):
            store.add(["x"], DOCUMENTS[:1], [{}])


# search and scores


FILTERS: list[tuple[Filter | None, np.ndarray]] = [
    (None, np.ones(N, bool)),
    ({"lang": "sw"}, np.arange(N) % 3 == 0),
    ({"n": {"lt": 9}}, np.arange(N) < 9),
]


def test_search_is_brute_force(any_state: Store, kind: str) -> None:
    hits = wanted_hits = 0
    for signal, (where, passing), query in product(("dense", "sparse"), FILTERS, QUERIES):
        wanted = brute_scores(signal, query, DOCUMENTS)
        order = np.argsort(-np.where(passing, wanted, -np.inf), kind="stable")
        best = [i for i in order[:10] if passing[i] and (signal == "dense" or wanted[i] > 0)]
        found = any_state.search(signal, query, 10, where)
        at = [int(id[1:]) for id in any_state.ids(found.rows)]
        assert len(at) == len(best)
        assert len(set(at)) == len(at)
        assert passing[at].all()
        np.testing.assert_allclose(found.scores, wanted[at], atol=TOLERANCE[kind])
        assert (np.diff(found.scores) <= 0).all()
        if kind == "exact":
            np.testing.assert_allclose(found.scores, wanted[best], atol=1e-5)
        hits += len(set(at) & set(best))
        wanted_hits += len(best)
    assert hits >= 0.99 * wanted_hits > 0


def test_equal_scores_come_by_row(full: Store) -> None:
    full.add(names(40, start=1000), DOCUMENTS[[0] * 40], [{}] * 40)
    for signal in ("dense", "sparse"):
        found = full.search(signal, DOCUMENTS[0], 20)
        order = np.lexsort((found.rows, -found.scores))
        assert order.tolist() == list(range(20))


def test_k_larger_than_the_store(full: Store) -> None:
    query = QUERIES[0]
    found = full.search("dense", query, 10 * N)
    assert sorted(full.ids(found.rows)) == sorted(names(N))
    sharing = np.count_nonzero(brute_scores("sparse", query, DOCUMENTS))
    assert 0 < sharing < N
    assert len(full.search("sparse", query, 10 * N).rows) == sharing
    assert len(full.search("dense", query, 0).rows) == 0


def test_scores_are_brute_force(any_state: Store, kind: str) -> None:
    rows = any_state.rows_of(names(N))
    lowest = dict.fromkeys(SIGNALS, 0.0)
    for signal, query in product(SIGNALS, QUERIES):
        wanted = brute_scores(signal, query, DOCUMENTS)
        lowest[signal] = min(lowest[signal], float(wanted.min()))
        np.testing.assert_allclose(any_state.scores(signal, query, rows), wanted, atol=TOLERANCE[kind])
        some = np.random.default_rng(0).permutation(N)[:17]
        found = any_state.scores(signal, query, rows[some])
        np.testing.assert_allclose(found, wanted[some], atol=TOLERANCE[kind])
    together = any_state.scores_of(
        QUERIES[0], {"sparse": rows[40:50], "multivector": rows[7::-1], "dense": rows}
    )
    for signal, part in {
        "sparse": slice(40, 50),
        "multivector": slice(7, None, -1),
        "dense": slice(N),
    }.items():
        wanted = brute_scores(signal, QUERIES[0], DOCUMENTS)[part]
        np.testing.assert_allclose(together[signal], wanted, atol=TOLERANCE[kind])
    assert any_state.scores_of(QUERIES[0], {}) == {}
    assert lowest["dense"] < 0
    assert lowest["multivector"] < 0


def test_maxsim_is_the_mean_of_maxima_that_may_be_negative(store: Store, kind: str) -> None:
    one = np.zeros((1, TOKEN_DIM), np.float16)
    one[0, 0] = 1
    documents = replace(DOCUMENTS[:1], multivector=MultiVector.from_rows([one]))
    store.add(["a"], documents, [{}])
    tokens = np.zeros((2, TOKEN_DIM), np.float32)
    tokens[:, 0] = [-1.0, -0.5]
    [found] = store.scores("multivector", Embedding(multivector=tokens), store.rows_of(["a"]))
    assert found == pytest.approx(-0.75, abs=max(1e-3, TOLERANCE[kind]))


def test_a_query_without_a_token(full: Store) -> None:
    empty = Embedding(
        QUERIES[0].dense, np.empty(0, np.int32), np.empty(0, np.float32), np.empty((0, 8), "f4")
    )
    rows = full.rows_of(names(5))
    assert len(full.search("sparse", empty, 5).rows) == 0
    assert full.scores("sparse", empty, rows).tolist() == [0] * 5
    assert full.scores("multivector", empty, rows).tolist() == [0] * 5


def test_queries_that_do_not_fit_are_refused(full: Store) -> None:
    rows = full.rows_of(["d0"])
    with pytest.raises(TrichromeError, match="unknown signal 'colbert'"):
        full.scores("colbert", QUERIES[0], rows)
    with pytest.raises(TrichromeError, match="multivector scores rerank"):
        full.search("multivector", QUERIES[0], 3)
    with pytest.raises(TrichromeError, match="query holds no sparse output"):
        full.search("sparse", Embedding(dense=QUERIES[0].dense), 3)
    with pytest.raises(TrichromeError, match="dense width is 3, the store's 16"):
        full.search("dense", Embedding(dense=np.ones(3, np.float32)), 3)
    with pytest.raises(TrichromeError, match="multivector width is 3, the store's 8"):
        full.scores("multivector", Embedding(multivector=np.ones((2, 3), np.float32)), rows)


# closing


def test_a_closed_store_refuses(full: Store, place: Place) -> None:
    rows = full.rows_of(["d0"])
    full.close()
    full.close()
    calls: list[Callable[[], object]] = [
        full.count,
        full.optimize,
        lambda: full.add(["x"], DOCUMENTS[:1], [{}]),
        lambda: full.delete(["d0"]),
        lambda: full.rows_of(["d0"]),
        lambda: full.ids(rows),
        lambda: full.payloads(rows),
        lambda: full.documents(rows),
        lambda: full.embeddings(rows),
        lambda: list(full.scan()),
        lambda: full.search("dense", QUERIES[0], 3),
        lambda: full.scores("dense", QUERIES[0], rows),
        lambda: full.scores_of(QUERIES[0], {"dense": rows}),
    ]
    for call in calls:
        with pytest.raises(TrichromeError, match="was closed; open it again"):
            call()
    with open_store(place) as again:
        assert again.count() == N


def test_threads_may_add_and_search_together(store: Store) -> None:
    errors: list[BaseException] = []

    def work(part: int) -> None:
        try:
            for start in range(75 * part, 75 * part + 75, 15):
                store.add(names(15, start), DOCUMENTS[start : start + 15], PAYLOADS[start : start + 15])
                found = store.search("dense", QUERIES[part], 5)
                assert len(store.ids(found.rows)) == len(set(found.rows.tolist())) > 0
        except BaseException as error:  # noqa: BLE001 - told below, where pytest sees it
            errors.append(error)

    threads = [Thread(target=work, args=[part]) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert_holds(store, names(N), DOCUMENTS, PAYLOADS)
