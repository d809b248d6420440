"""The store on a Qdrant server: what goes over the wire, what is repeated, refused, and how it is told.

The server is `qdrant_rest`. The contract of stores is tested in test_store_contract.py, in local mode and
where QDRANT_URL names a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.index.places import new_place
from tests.index.qdrant_rest import Rest, serving
from tests.index.samples import TOKEN_DIM, assert_holds, brute_scores, make_store, names, random_embeddings
from trichrome.embeddings import SIGNALS, MultiVector
from trichrome.errors import StoreLocked, TrichromeError
from trichrome.index import Store, has_store, open_store, qdrant_store, read_manifest
from trichrome.index.qdrant_filters import to_models

N = 40
DOCUMENTS = random_embeddings(N, seed=21)
PAYLOADS = [
    {"text": f"é {i}", "n": i, "big": 2**63 - 1 - i, "lang": "en" if i % 2 else "sw"} for i in range(N)
]


@pytest.fixture
def server() -> Iterator[Rest]:
    with serving() as running:
        yield running


@pytest.fixture
def store(server: Rest) -> Iterator[Store]:
    with make_store(f"{server.url}/notes", "qdrant") as made:
        made.add(names(N), DOCUMENTS, PAYLOADS)
        server.requests.clear()
        yield made


def test_over_the_wire_everything_comes_back_bit_for_bit(server: Rest, store: Store) -> None:
    assert_holds(store, names(N), DOCUMENTS, PAYLOADS)
    query, rows = random_embeddings(3, seed=22)[2], store.rows_of(names(N))
    for signal in SIGNALS:
        wanted = brute_scores(signal, query, DOCUMENTS)
        np.testing.assert_allclose(store.scores(signal, query, rows), wanted, atol=1e-5)
    found = store.search("dense", query, 5, {"lang": "en", "n": {"gte": 3, "lt": float("inf")}})
    assert all(int(id[1:]) % 2 and int(id[1:]) >= 3 for id in store.ids(found.rows))
    store.optimize()
    assert store.delete(["d0", "d1", "d0"]) == 2
    assert has_store(f"{server.url}/notes")
    assert not has_store(f"{server.url}/other")
    assert read_manifest(f"{server.url}/notes") == store.manifest
    with open_store(f"{server.url}/notes?timeout=5") as again:
        assert_holds(again, names(N)[2:], DOCUMENTS[2:], PAYLOADS[2:])


@pytest.mark.parametrize("status", [0, 429, 500, 502, 503, 504])
def test_what_fails_in_passing_is_repeated(server: Rest, store: Store, status: int) -> None:
    changed = random_embeddings(1, seed=23)
    server.failures = [("PUT", "/points", status), ("POST", "/points", status)]
    store.add(["d3"], changed, [{"new": True}])
    assert server.failures == []
    assert server.requests.count(("PUT", "/collections/notes/points")) == 2
    assert store.payloads(store.rows_of(["d3"])) == [{"new": True}]
    assert store.count() == N


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, r"qdrant://127.0.0.1:\d+/notes: could not count \(400: told None\)"),
        (401, "set QDRANT_API_KEY"),
        (403, "the key in QDRANT_API_KEY may not do this"),
    ],
)
def test_what_will_not_pass_is_told_at_once(server: Rest, store: Store, status: int, message: str) -> None:
    server.failures = [("POST", "/points/count", status)]
    with pytest.raises(TrichromeError, match=message):
        store.count()
    assert len(server.requests) == 1


def test_repetitions_end(server: Rest) -> None:
    make_store(f"{server.url}/notes", "qdrant").close()
    with open_store(f"{server.url}/notes?retries=1") as store:
        server.failures = [("PUT", "/points", 503)] * 3
        with pytest.raises(TrichromeError, match="not stored, or only in part; add it again"):
            store.add(names(1), DOCUMENTS[:1], [{}])
        assert len(server.failures) == 1


def test_a_large_batch_goes_in_several_requests(
    server: Rest, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_store, "_REQUEST_BYTES", 12_000)
    changed = random_embeddings(N, seed=24)
    store.add(names(N), changed, PAYLOADS)
    assert 2 < server.requests.count(("PUT", "/collections/notes/points")) < N
    assert_holds(store, names(N), changed, PAYLOADS)


def test_a_document_that_no_server_takes_is_refused_whole(store: Store) -> None:
    tokens = np.zeros(((1 << 20) // TOKEN_DIM, TOKEN_DIM), np.float16)
    tokens[:, 0] = 1
    long = replace(DOCUMENTS[:1], multivector=MultiVector.from_rows([tokens]))
    with pytest.raises(
        TrichromeError, match="'long': 131072 token vectors of width 8 are more than Qdrant stores"
    ):
        store.add(["long"], long, [{}])
    assert store.count() == N
    short = replace(DOCUMENTS[:1], multivector=MultiVector.from_rows([tokens[1:]]))
    qdrant_store.QdrantStore._check_sizes(store, ["short"], short)  # type: ignore[arg-type]


# creating and opening


def test_shards_and_replicas_are_asked_for_and_checked(server: Rest) -> None:
    url = f"{server.url}/big"
    made = make_store(f"{url}?shards=3&replicas=2&write_consistency=2", "qdrant")
    made.close()
    asked = {"shard_number": 3, "replication_factor": 2, "write_consistency_factor": 2}
    assert server.asked["big"] == asked
    open_store(f"{url}?shards=3").close()
    with pytest.raises(TrichromeError, match="the collection has shards 3, not 4; leave shards out"):
        open_store(f"{url}?shards=4")
    with pytest.raises(TrichromeError, match="the collection has quantization none, not int8"):
        open_store(f"{url}?quantization=int8")


def test_quantization_is_asked_for(server: Rest) -> None:
    make_store(f"{server.url}/small?quantization=int8", "qdrant").close()
    dense = server.local.get_collection("small").config.params.vectors["dense"]
    assert dense.quantization_config.scalar.type == "int8"
    open_store(f"{server.url}/small?quantization=int8").close()


def test_a_collection_of_others_is_left_alone(server: Rest, store: Store) -> None:
    server.local.create_collection("theirs", {})
    server.asked["theirs"] = {}
    with pytest.raises(TrichromeError, match="was not made by trichrome"):
        open_store(f"{server.url}/theirs")
    for name in ("theirs", "notes"):
        with pytest.raises(TrichromeError, match="there is a collection already"):
            make_store(f"{server.url}/{name}", "qdrant")
    with pytest.raises(TrichromeError, match="there is no such collection"):
        open_store(f"{server.url}/nobody")


def test_a_creation_that_fails_leaves_nothing(server: Rest) -> None:
    server.failures = [("PUT", "/index", 400)]
    with pytest.raises(TrichromeError, match="could not index the field 'lang'"):
        make_store(f"{server.url}/notes", "qdrant")
    assert not has_store(f"{server.url}/notes")


def test_the_key_comes_from_the_environment(server: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    with pytest.warns(UserWarning, match="insecure connection"):
        assert not has_store(f"{server.url}/notes")
    assert server.headers["api-key"] == "secret"


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(TrichromeError, match=r"qdrant://127.0.0.1:1/x\?retries=0: could not be reached"):
        open_store("qdrant://127.0.0.1:1/x?retries=0")


def test_local_mode_opens_once(folder: Path) -> None:
    with new_place("qdrant", folder) as place:
        with make_store(place, "qdrant"), pytest.raises(StoreLocked, match="the folder is open elsewhere"):
            open_store(place)
        open_store(place).close()
        with pytest.raises(TrichromeError, match="there is no such collection"):
            open_store(f"{place}-other")
    with pytest.raises(TrichromeError, match="no such folder of Qdrant's local mode"):
        open_store(f"qdrant+file://{folder}/nowhere/x")
    assert not (folder / "nowhere").exists()


def test_infinite_bounds_have_finite_names() -> None:
    inf = float("inf")
    assert to_models({"n": {"lt": inf, "gte": 1}}).must[0].range.lte > 1e300
    assert to_models({"n": {"gt": inf}}).must[0].has_id == []
    assert to_models({"n": {"lte": -inf, "gt": 0}}).must[0].has_id == []
    assert to_models({"n": {"gt": -inf}}).must[0].range.gte < -1e300
