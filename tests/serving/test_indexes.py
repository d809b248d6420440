"""Search over HTTP is Searcher.search; acknowledged documents are there, after a reopening too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serving.live import DOCUMENTS, Live, make_store, running
from trichrome.encoder import Encoder
from trichrome.index import open_store
from trichrome.search import MODE_NAMES, Searcher

KINDS = ("exact", "embedded")


def hits(live: Live, kind: str, **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live.ok(f"/indexes/{kind}/search", {"query": "the moon", **body})["hits"]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_every_mode_is_what_the_searcher_finds(
    live: Live, encoder: Encoder, tmp_path: Path, kind: str, mode: str
) -> None:
    with make_store(tmp_path / "same", encoder, kind) as store:
        wanted = Searcher(encoder, store).search("the moon", mode, k=3)
    found = hits(live, kind, mode=mode, k=3)
    assert [hit["id"] for hit in found] == [hit.id for hit in wanted]
    for hit, expected in zip(found, wanted, strict=True):
        for name in ("score", "dense", "sparse", "multivector"):
            assert hit[name] == pytest.approx(getattr(expected, name), abs=1e-4)
        assert (hit["text"], hit["title"], hit["lang"]) == (expected.text, expected.title, expected.lang)
        taken = ("text", "title", "lang")
        assert hit["metadata"] == {k: v for k, v in expected.payload.items() if k not in taken}


@pytest.mark.parametrize("kind", KINDS)
def test_filters_weights_and_fusion(live: Live, kind: str) -> None:
    assert {hit["id"] for hit in hits(live, kind, filter={"lang": "en"})} == {"moon", "cat/old"}
    assert {hit["id"] for hit in hits(live, kind, filter={"year": {"gte": 2022}})} == {"bird", "川"}
    best = hits(live, kind, weights=[0, 0, 2])[0]
    assert best["score"] == pytest.approx(2 * best["multivector"], abs=1e-4)
    assert hits(live, kind, fusion="rrf")[0]["score"] < 1
    assert hits(live, kind, filter={"lang": "xx"}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_explanation_adds_up_and_points_into_the_texts(live: Live, kind: str) -> None:
    for query in (document.text for document in DOCUMENTS):
        for hit in live.ok(f"/indexes/{kind}/search", {"query": query, "explain": True})["hits"]:
            why = hit["explanation"]
            assert why["sparse"] == pytest.approx(hit["sparse"], abs=1e-2)
            assert why["multivector"] == pytest.approx(hit["multivector"], abs=1e-2)
            assert why["matches"]
            for token in why["shared"]:
                for start, end in token["passage_spans"]:
                    assert why["content"][start:end] == token["token"].replace("▁", "")
            for match in why["matches"]:
                start, end = match["query_span"]
                assert 0 <= start <= end <= len(query)
    assert "explanation" not in hits(live, kind)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_added_changed_read_and_removed(live: Live, kind: str) -> None:
    base = f"/indexes/{kind}/documents"
    before = live.get(f"/indexes/{kind}").json()["documents"]
    document = {
        "id": "new/one two",
        "text": "green light",
        "lang": "en",
        "metadata": {"tags": ["a", {"b": 1.5}]},
    }
    made = live.ok(base, {"documents": [document, {"id": "other", "text": "a dog"}]})
    assert (made["added"], made["updated"], made["unchanged"], made["deleted"]) == (2, 0, 0, 0)
    assert live.get(f"/indexes/{kind}").json()["documents"] == before + 2
    (passage,) = live.get(f"{base}/new/one two").json()["passages"]
    assert passage["text"] == "green light"
    assert passage["metadata"].items() >= document["metadata"].items()  # type: ignore[attr-defined]
    again = live.ok(base, {"documents": [document, {"id": "other", "text": "an old dog"}]})
    assert (again["added"], again["updated"], again["unchanged"]) == (0, 1, 1)
    assert live.get(f"{base}/other").json()["passages"][0]["text"] == "an old dog"
    assert live.delete(f"{base}/new/one two").json() == {"deleted": 1}
    assert live.delete(f"{base}/new/one two").status_code == 404
    assert live.get(f"{base}/new/one two").status_code == 404
    gone = live.post(f"{base}/delete", {"ids": ["other", "never there"]})
    assert gone.json() == {"deleted": 1}
    assert live.get(f"/indexes/{kind}").json()["documents"] == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_document_is_cut_and_its_old_passages_go(live: Live, kind: str) -> None:
    base = f"/indexes/{kind}/documents"
    before = live.get(f"/indexes/{kind}").json()["documents"]
    neighbour = {"id": "long#9", "text": "a bird of its own"}  # looks like a passage of "long"
    live.ok(base, {"documents": [neighbour]})
    made = live.ok(base, {"documents": [{"id": "long", "text": "the old cat sings. " * 20}]})
    assert made["cut"] == 1
    assert made["added"] > 3
    passages = live.get(f"{base}/long").json()["passages"]
    assert [p["id"] for p in passages] == [f"long#{i}" for i in range(made["added"])]
    assert all(p["metadata"]["document"] == "long" for p in passages)
    shorter = live.ok(base, {"documents": [{"id": "long", "text": "the old cat sings. " * 8}]})
    kept = live.get(f"{base}/long").json()["passages"]
    assert 1 < len(kept) == made["added"] - shorter["deleted"] < made["added"]
    live.ok(base, {"documents": [{"id": "long", "text": "the old cat"}]})
    assert [p["id"] for p in live.get(f"{base}/long").json()["passages"]] == ["long"]
    assert live.get(f"{base}/long#9".replace("#", "%23")).json()["passages"][0]["text"] == neighbour["text"]
    live.ok(f"{base}/delete", {"ids": ["long", "long#9"]})
    assert live.get(f"/indexes/{kind}").json()["documents"] == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimized_index_answers_the_same(live: Live, kind: str) -> None:
    before = hits(live, kind)
    described = live.get(f"/indexes/{kind}").json()
    assert live.ok(f"/indexes/{kind}/optimize", None) == described
    assert [hit["id"] for hit in hits(live, kind)] == [hit["id"] for hit in before]


def test_indexes_are_listed(live: Live) -> None:
    listed = live.get("/indexes").json()["indexes"]
    assert [(index["name"], index["kind"]) for index in listed] == [(k, k) for k in sorted(KINDS)]
    assert listed[0]["signals"] == ["dense", "sparse", "multivector"]
    assert "there are: embedded, exact" in live.get("/indexes/nothing").json()["error"]["message"]


@pytest.mark.parametrize(
    ("where", "body", "says"),
    [
        ("search", {"query": "  "}, "query"),
        ("search", {"query": "a", "k": 100_000}, "at most 1000"),
        ("search", {"query": "a", "weights": [0, 0, 0]}, "not all 0"),
        ("search", {"query": "a", "filter": {"year": {"above": 3}}}, "year"),
        ("search", {"query": "a", "filter": {"year": 10**30}}, "64 bits"),
        ("documents", {"documents": [{"id": "a", "text": " "}]}, "text"),
        ("documents", {"documents": [{"id": "a", "text": "b"}] * 2}, "twice"),
        ("documents", {"documents": [{"id": "a", "text": "b", "metadata": {"text": "c"}}]}, "name 'text'"),
        ("documents", {"documents": [{"id": "a", "text": "b", "metadata": {"n": [10**30]}}]}, "64 bits"),
        (
            "documents",
            {
                "documents": [
                    {"id": "a", "text": "b", "metadata": {"n": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}
                ]
            },
            "deeper than 16",
        ),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_done_is_refused(live: Live, kind: str, where: str, body: Any, says: str) -> None:
    before = live.get(f"/indexes/{kind}").json()["documents"]
    response = live.post(f"/indexes/{kind}/{where}", body)
    assert response.status_code == 422, response.text
    assert says in response.json()["error"]["message"]
    assert live.get(f"/indexes/{kind}").json()["documents"] == before


@pytest.mark.parametrize("kind", KINDS)
def test_many_write_and_search_at_once_and_all_of_it_is_on_disk(
    encoder: Encoder, tmp_path: Path, kind: str
) -> None:
    store = make_store(tmp_path / "store", encoder, kind)
    with running(encoder, {"docs": store}) as live, ThreadPoolExecutor(8) as pool:

        def work(n: int) -> int:
            body = {"documents": [{"id": f"{n % 4}-{i}", "text": f"the {n} moon {i}"} for i in range(5)]}
            statuses = [live.post("/indexes/docs/documents", body).status_code]
            statuses.append(live.post("/indexes/docs/search", {"query": "moon", "explain": True}).status_code)
            statuses.append(live.delete(f"/indexes/docs/documents/{n % 4}-0").status_code)
            return sum(status not in (200, 404) for status in statuses)

        assert sum(pool.map(work, range(16))) == 0
    with open_store(tmp_path / "store") as again:
        kept = {id for id, _ in again.scan()}
    assert kept == {document.id for document in DOCUMENTS} | {
        f"{n}-{i}" for n in range(4) for i in range(1, 5)
    }
