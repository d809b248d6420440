"""Indexes that clients make and remove."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.live import make_store, running
from trichrome.encoder import Encoder
from trichrome.index import open_store, read_manifest
from trichrome.serving import Shelf


def test_an_index_is_made_filled_searched_and_removed(encoder: Encoder, tmp_path: Path) -> None:
    with running(encoder, shelf=Shelf(tmp_path, {"model": "tiny"})) as live:
        put = live.session.put
        made = put(f"{live.url}/indexes/notes", json={"passage_tokens": 20, "overlap": 4}, timeout=60)
        assert made.status_code == 201, made.text
        assert (made.json()["documents"], made.json()["kind"]) == (0, "embedded")
        again = put(f"{live.url}/indexes/notes", json={"passage_tokens": 20, "overlap": 4}, timeout=60)
        assert (again.status_code, again.json()) == (200, made.json())
        other = put(f"{live.url}/indexes/notes", json={"kind": "exact"}, timeout=60)
        assert (other.status_code, other.json()["error"]["type"]) == (409, "conflict")
        document = {"id": "long", "text": "the old cat sings. " * 20}
        assert live.ok("/indexes/notes/documents", {"documents": [document]})["cut"] == 1
        assert live.ok("/indexes/notes/search", {"query": "cat", "k": 1})["hits"]
        assert put(f"{live.url}/indexes/plain", timeout=60).status_code == 201  # without a body
        assert [index["name"] for index in live.get("/indexes").json()["indexes"]] == ["notes", "plain"]
        assert live.delete("/indexes/plain").status_code == 204
        assert live.delete("/indexes/plain").status_code == 404
        assert live.post("/indexes/plain/search", {"query": "cat"}).status_code == 404
        assert sorted(path.name for path in tmp_path.iterdir()) == ["notes"]
    assert read_manifest(tmp_path / "notes").settings == {"model": "tiny", "passage_tokens": 20, "overlap": 4}
    with open_store(tmp_path / "notes") as store:
        assert store.count() > 3


@pytest.mark.parametrize(
    ("name", "body", "status", "says"),
    [
        ("a b", {}, 422, "letters"),
        ("-a", {}, 422, "letters"),
        (".hidden", {}, 422, "letters"),
        ("b" * 101, {}, 422, "letters"),
        ("new", {"passage_tokens": 1000}, 422, "reads at most"),
        ("new", {"passage_tokens": 10, "overlap": 6}, 422, "half"),
        ("new", {"kind": "qdrant"}, 422, "kind"),
        ("taken", {}, 409, "choose another"),
    ],
)
def test_what_cannot_be_made_is_refused(
    encoder: Encoder, tmp_path: Path, name: str, body: dict[str, object], status: int, says: str
) -> None:
    (tmp_path / "taken").mkdir()
    with running(encoder, shelf=Shelf(tmp_path, {})) as live:
        refused = live.session.put(f"{live.url}/indexes/{name}", json=body, timeout=60)
        assert refused.status_code == status, refused.text
        assert says in refused.json()["error"]["message"]
        assert live.get("/indexes").json()["indexes"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_lies_elsewhere_is_not_removed(encoder: Encoder, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "home", {})
    make_store(tmp_path / "home" / "notes", encoder, "exact").close()
    elsewhere = make_store(tmp_path / "elsewhere" / "notes", encoder, "exact")
    with running(encoder, {"notes": elsewhere}, shelf=shelf) as live:
        assert live.delete("/indexes/notes").status_code == 403
        assert live.get("/indexes/notes").json()["documents"] == 4
    assert (tmp_path / "home" / "notes" / "manifest.json").is_file()
    with running(encoder, {"notes": open_store(tmp_path / "elsewhere" / "notes")}) as live:  # without a shelf
        assert live.delete("/indexes/notes").status_code == 403
        assert live.session.put(f"{live.url}/indexes/new", json={}, timeout=60).status_code == 403


def test_what_began_ends_well_while_an_index_goes(encoder: Encoder, tmp_path: Path) -> None:
    left = tmp_path / ".removed-abc" / "old"
    left.mkdir(parents=True)  # of a server that was killed
    store = make_store(tmp_path / "notes", encoder, "embedded")
    with running(encoder, {"notes": store}, shelf=Shelf(tmp_path, {}, ["notes"])) as live:
        assert not left.exists()

        def work(n: int) -> int:
            if n == 20:
                return live.delete("/indexes/notes").status_code
            if n % 2:
                return live.post("/indexes/notes/search", {"query": "moon", "explain": True}).status_code
            body = {"documents": [{"id": str(n), "text": f"the moon {n}"}]}
            return live.post("/indexes/notes/documents", body).status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(work, range(40)))
        assert statuses[20] == 204
        assert set(statuses) <= {200, 204, 404}
        assert 404 in statuses
        made = live.session.put(f"{live.url}/indexes/notes", json={}, timeout=60)
        assert (made.status_code, made.json()["documents"]) == (201, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
