"""What a page needs besides hits: the query's tokens, the nearest passage tokens, a field's values."""

from __future__ import annotations

import pytest

from tests.serving.live import Live

KINDS = ("exact", "embedded")


@pytest.mark.parametrize("kind", KINDS)
def test_an_explained_search_tells_the_querys_tokens_and_runners_up(live: Live, kind: str) -> None:
    query = "the old moon"
    body = {"query": query, "explain": True, "runners_up": 2, "k": 2}
    found = live.ok(f"/indexes/{kind}/search", body)
    assert [query[slice(*token["span"])] for token in found["query"]] == ["the", "old", "moon"]
    weights = {token["token"]: token["weight"] for token in found["query"]}
    for hit in found["hits"]:
        content = hit["explanation"]["content"]
        for token in hit["explanation"]["shared"]:
            assert token["query_weight"] == pytest.approx(weights[token["token"]])
        for match in hit["explanation"]["matches"]:
            cosines = [match["cosine"], *(near["cosine"] for near in match["runners_up"])]
            assert len(cosines) == 3
            assert cosines == sorted(cosines, reverse=True)
            for near in match["runners_up"]:
                start, end = near["span"]
                assert start == end or content[start:end] == near["token"].replace("▁", "")
    assert "query" not in live.ok(f"/indexes/{kind}/search", {"query": query})
    assert live.post(f"/indexes/{kind}/search", {**body, "runners_up": 17}).status_code == 422


@pytest.mark.parametrize("kind", KINDS)
def test_a_fields_values_are_counted(live: Live, kind: str) -> None:
    found = live.get(f"/indexes/{kind}/values", params={"field": "lang"}).json()
    values = [{"value": "en", "count": 2}, {"value": "de", "count": 1}, {"value": "ja", "count": 1}]
    assert found == {"field": "lang", "values": values, "read": 4, "complete": True}
    numbers = live.get(f"/indexes/{kind}/values", params={"field": "year"}).json()
    assert numbers == {"field": "year", "values": [], "read": 4, "complete": True}
    assert live.get(f"/indexes/{kind}/values").status_code == 422
    assert live.get(f"/indexes/{kind}/values", params={"field": 'a"b'}).status_code == 422
    assert live.get(f"/indexes/{kind}/values", params={"field": "a[0].b c"}).json()["values"] == []
    for odd in ('a"b', "a\\b", "\\"):  # names that engines have no path for
        assert live.get(f"/indexes/{kind}/values", params={"field": odd}).status_code == 422
        filtered = live.post(f"/indexes/{kind}/search", {"query": "moon", "filter": {odd: 1}})
        assert filtered.status_code == 422
    assert live.get("/indexes/nothing/values", params={"field": "lang"}).status_code == 404


def test_a_large_index_is_counted_in_part(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichrome.serving.values.READ", 3)
    found = live.get("/indexes/exact/values", params={"field": "lang"}).json()
    assert (found["read"], found["complete"]) == (3, False)
    assert sum(value["count"] for value in found["values"]) == 3
