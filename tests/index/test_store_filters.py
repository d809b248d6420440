"""What filters let through, the same in all stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.index.places import KINDS, new_place
from tests.index.samples import make_store, names, random_embeddings
from trichrome.errors import TrichromeError
from trichrome.index import Place, Store
from trichrome.index.filters import matches

PAYLOADS: dict[str, dict[str, Any]] = {
    "a": {"lang": "en", "year": 2001, "ok": True, "source": {"page": 3, "name": "é"}, "tags": ["x", "y"]},
    "b": {"lang": "de", "year": 2010.5, "ok": False, "tags": ["y", 5],
          "source": {"page": 7, "name": "e\u0301"}},
    "c": {"lang": "日本語", "year": None, "n": 1, "tags": [], "source": {"page": None}},
    "d": {},
    "e": {"lang": "en", "year": "2001", "n": 1.0, "ok": 1, "source": "page", "sp ace": {"ü.ö": 1, "ü": "v"}},
    "f": {"source.page": 3, "n": 2**53 + 1, "lang": ["en", "fr"], "tags": [["x"], None],
          "year": [1990, 2020]},
    "g": {"n": -0.5, "lang": "EN", "text": "en", "year": 0, "deep": {"er": {"still": False}}, "ok": None},
}  # fmt: skip

CASES: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdefg"),
    ({"lang": "en"}, "aef"),
    ({"lang": "日本語"}, "c"),
    ({"lang": ["de", "fr"]}, "bf"),
    ({"lang": ["en", None]}, "adef"),
    ({"lang": []}, ""),
    ({"lang": None}, "d"),
    ({"lang": "en", "year": 2001}, "a"),
    ({"year": 2001}, "a"),
    ({"year": "2001"}, "e"),
    ({"year": [2001, "2001", 2010.5]}, "abe"),
    ({"year": {"gte": 2001}}, "abf"),
    ({"year": {"gt": 2001, "lt": 2015}}, "b"),
    ({"year": {"lte": 0}}, "g"),
    ({"year": None}, "cd"),
    ({"ok": True}, "a"),
    ({"ok": False}, "b"),
    ({"ok": 1}, "e"),
    ({"ok": [True, False]}, "ab"),
    ({"ok": None}, "cdfg"),
    ({"n": 1}, "ce"),
    ({"n": 1.0}, "ce"),
    ({"n": True}, ""),
    ({"n": {"lt": 0}}, "g"),
    ({"n": 2**53 + 1}, "f"),
    ({"n": 2**53}, ""),
    ({"source.page": 3}, "a"),
    ({"source.page": {"gte": 3}}, "ab"),
    ({"source.page": None}, "cdefg"),
    ({"source.name": "é"}, "a"),
    ({"source": "page"}, "e"),
    ({"sp ace.ü": "v"}, "e"),
    ({"deep.er.still": False}, "g"),
    ({"tags": "y"}, "ab"),
    ({"tags": 5}, "b"),
    ({"tags": "x"}, "a"),
    ({"absent": 1}, ""),
    ({"absent": None}, "abcdefg"),
    ({"id": "a"}, ""),
    ({"p.lang": "en"}, ""),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every test here runs for all kinds of stores."""
    return str(request.param)


@pytest.fixture
def store(kind: str, place: Place) -> Iterator[Store]:
    with make_store(place, kind) as made:
        embeddings = random_embeddings(len(PAYLOADS), seed=1)
        made.add(list(PAYLOADS), embeddings, list(PAYLOADS.values()))
        yield made


def test_each_condition(store: Store) -> None:
    query = random_embeddings(1, seed=2)[0]
    for state in ("fresh", "optimized"):
        for where, wanted in CASES:
            assert sorted(id for id, _ in store.scan(where)) == list(wanted), (state, where)
            assert store.count(where) == len(wanted), (state, where)
            found = store.search("dense", query, 10, where)
            assert sorted(store.ids(found.rows)) == list(wanted), (state, where)
        store.optimize()


def test_fields_of_a_scan(store: Store) -> None:
    found = dict(store.scan({"lang": "en"}, ["year", "source.page", "source"]))
    assert found == {
        id: {k: v for k, v in PAYLOADS[id].items() if k in ("year", "source.page", "source")} for id in "aef"
    }
    assert dict(store.scan(fields=[])) == {id: {} for id in PAYLOADS}


def test_a_filter_follows_updates(store: Store) -> None:
    assert store.count({"lang": "de"}) == 1
    store.add(["b", "h"], random_embeddings(2, seed=3), [{"lang": "fi"}, {"lang": "de"}])
    assert [id for id, _ in store.scan({"lang": "de"})] == ["h"]
    store.delete(["h"])
    assert store.count({"lang": "de"}) == 0
    assert store.count({"lang": "fi"}) == 1


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"year": {"from": 3}}, "a range takes gt, gte, lt, lte"),
        ({"year": {}}, "a range takes"),
        ({"year": {"gt": "3"}}, "gt must be a number"),
        ({"year": {"gt": True}}, "gt must be a number"),
        ({"year": float("nan")}, "not a JSON number"),
        ({"year": [[1]]}, "cannot compare"),
        ({"": 1}, "filter key ''"),
        ({"a..b": 1}, "filter key 'a..b'"),
        ({3: 1}, "filter key 3"),
        (["lang"], "must map keys"),
    ],
)
def test_wrong_filters_are_refused(store: Store, where: Any, message: str) -> None:
    for call in (store.count, lambda w: list(store.scan(w))):
        with pytest.raises(TrichromeError, match=message):
            call(where)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from([0, 1, -1, 1.0, 0.5, 2**53, 2**53 + 1]), st.sampled_from("xyz")
)
FIELDS = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.fixed_dictionaries({}, optional={"k": SCALARS}))
DOCUMENT = st.fixed_dictionaries({}, optional={"a": FIELDS, "b b": FIELDS, "lang": FIELDS})
BOUNDS = st.sampled_from([0, 1, -1, 0.5, 1.5, float("inf")])
CONDITION = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), BOUNDS, min_size=1, max_size=2),
)
FILTER = st.dictionaries(st.sampled_from(["a", "b b", "lang", "a.k", "lang.k", "no"]), CONDITION, max_size=2)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payloads=st.lists(DOCUMENT, min_size=8, max_size=8), filters=st.lists(FILTER, min_size=15, max_size=15)
)
def test_any_filter_means_what_matches_says(
    kind: str, folder: Path, payloads: list[Any], filters: list[Any]
) -> None:
    inside = folder / str(len(list(folder.iterdir())))
    with new_place(kind, inside) as place, make_store(place, kind) as store:
        store.add(names(len(payloads)), random_embeddings(len(payloads), seed=1), payloads)
        for where in filters:
            wanted = {f"d{i}" for i, payload in enumerate(payloads) if matches(payload, where)}
            assert {id for id, _ in store.scan(where)} == wanted, where
